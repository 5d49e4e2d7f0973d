"""A client over sandboxes in memory."""

from __future__ import annotations

import signal
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


@pytest.fixture(autouse=True)
def heeded_interrupts() -> Iterator[None]:
    """Heed SIGINT, which a shell has its background jobs ignore: a test would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
