"""A client over sandboxes in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandpool import SandboxClient
from sandpool.testing import FakeBackend


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(modules=["numpy"])


@pytest.fixture
def client(backend: FakeBackend) -> Iterator[SandboxClient]:
    with SandboxClient(backends={"native": lambda: backend}) as client:
        yield client
