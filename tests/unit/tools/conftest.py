"""Sandboxes for tools: in memory always, native ones where the host can."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandpool.manager.backends import BackendFactory
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import SandboxConfig
from sandpool.testing import FakeBackend

NATIVE = pytest.param("native", marks=pytest.mark.namespaces)


@pytest.fixture(params=["fake", NATIVE])
async def sandbox(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> AsyncIterator[LocalSandbox]:
    """Run the test in memory, and in a real sandbox."""
    async for made in _made(request.param, native_backend):
        yield made


@pytest.fixture(params=["fake"])
async def fake(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> AsyncIterator[LocalSandbox]:
    """Run the test in memory only."""
    async for made in _made(request.param, native_backend):
        yield made


@pytest.fixture(params=[NATIVE])
async def native(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> AsyncIterator[LocalSandbox]:
    """Run the test where a real interpreter, shell and kernel are needed."""
    async for made in _made(request.param, native_backend):
        yield made


async def _made(kind: str, native_backend: BackendFactory) -> AsyncIterator[LocalSandbox]:
    backend = FakeBackend() if kind == "fake" else native_backend()
    try:
        async with LocalSandbox(SandboxConfig(), backend=backend) as sandbox:
            yield sandbox
    finally:
        await backend.aclose()
