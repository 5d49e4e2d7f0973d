"""The server that the tests of the dialects speak to, over sandboxes in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from sandpool.server import ServerSettings
from sandpool.testing import FakeBackend, ManualClock
from tests.dialects.application import in_memory


@pytest.fixture
def clock() -> ManualClock:
    """Return the clock that programs in the sandboxes sleep on."""
    return ManualClock()


@pytest.fixture
def backend(clock: ManualClock) -> FakeBackend:
    """Return what the server makes sandboxes with."""
    return FakeBackend(clock=clock)


@pytest.fixture
def settings() -> ServerSettings:
    """Return the server's settings; a module may have its own."""
    return ServerSettings(port=0)


@pytest.fixture
async def api(settings: ServerSettings, backend: FakeBackend) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the whole server, without a socket between them."""
    async with in_memory(settings, backend) as client:
        yield client
