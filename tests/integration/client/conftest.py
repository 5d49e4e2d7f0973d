"""A server, a way to it that can lose things, and a manager at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandpool.client import HttpSandboxManager
from sandpool.models import PoolSpec
from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend, ManualClock
from tests.integration.client.proxy import Proxy, between

POOL = PoolSpec(name="rl", warm=1, max=2)


@pytest.fixture
def clock() -> ManualClock:
    """The server's clock; clients have real ones, if a test does not say otherwise."""
    return ManualClock()


@pytest.fixture
async def server_url(clock: ManualClock) -> AsyncIterator[str]:
    settings = ServerSettings(port=0)
    async with serving(settings, backends={"native": FakeBackend}, clock=clock) as url:
        yield url


@pytest.fixture
async def proxy(server_url: str) -> AsyncIterator[Proxy]:
    async with between(server_url) as proxy:
        yield proxy


@pytest.fixture
async def manager(proxy: Proxy) -> AsyncIterator[HttpSandboxManager]:
    """A manager behind the proxy, and a pool of one warm sandbox."""
    async with HttpSandboxManager(base_url=proxy.url) as manager:
        await manager.create_pool(POOL)
        await manager.wait_pool_warm("rl")
        yield manager
        proxy.decide = lambda _: "pass"
