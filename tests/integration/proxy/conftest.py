"""Servers whose sandboxes' ports lead to servers of the test, in this program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from sandpool.server import ServerSettings, serving
from sandpool.testing import ManualClock
from tests.conftest import ASYNCIO, Loop
from tests.integration.proxy.world import Machine, World

NewWorld = Callable[..., Awaitable[World]]


@pytest.fixture(scope="module")
def anyio_backend() -> Loop:
    """Have one event loop for all of a module, and so for servers that its tests share."""
    return ASYNCIO


@pytest.fixture(scope="module")
async def shared_world() -> AsyncIterator[NewWorld]:
    """Return a function that starts a server with these settings, once for a module."""
    worlds: dict[str, World] = {}
    async with AsyncExitStack() as stack:

        async def start(settings: ServerSettings) -> World:
            name = settings.model_dump_json()
            if name not in worlds:
                machine, clock = Machine(), ManualClock()
                stack.push_async_callback(machine.aclose)
                backends = {"native": machine.new_backend}
                url = await stack.enter_async_context(
                    serving(settings, backends=backends, clock=clock)
                )
                client = await stack.enter_async_context(
                    httpx.AsyncClient(base_url=url, verify=False, timeout=60)
                )
                worlds[name] = World(url, client, machine, clock)
            return worlds[name]

        yield start


@pytest.fixture
async def new_world(shared_world: NewWorld) -> AsyncIterator[NewWorld]:
    """Return a function that gives a server with these settings, with nothing in it."""
    used: list[World] = []

    async def start(settings: ServerSettings) -> World:
        world = await shared_world(settings)
        used.append(world)
        return world

    yield start
    for world in used:
        await world.clear()


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    """An open server on loopback."""
    return await new_world(ServerSettings(port=0))
