"""The managers that the contract of `SandboxService` is held against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandpool.manager.backends import default_backend
from sandpool.manager.local import LocalSandboxManager
from sandpool.service import SandboxService
from sandpool.testing import FakeBackend

KINDS = [
    pytest.param("fake", id="fake"),
    pytest.param("native", id="native", marks=pytest.mark.namespaces),
]


@pytest.fixture(params=KINDS)
async def service(request: pytest.FixtureRequest) -> AsyncIterator[SandboxService]:
    """A started manager; whatever a test leaves behind is gone after it."""
    make = FakeBackend if request.param == "fake" else default_backend
    async with LocalSandboxManager(backends={"native": make}) as manager:
        yield manager
