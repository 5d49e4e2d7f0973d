"""Leases over HTTP: kept alive by their holders, and ended for those who are gone."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from sandpool.client import HttpSandboxManager
from sandpool.models import PoolSpec
from sandpool.testing import ManualClock
from tests.integration.client.proxy import Proxy

pytestmark = pytest.mark.anyio

HOLDER = """
import anyio
from sandpool.client import HttpSandboxManager

async def main():
    async with HttpSandboxManager(base_url={url!r}) as manager, manager.lease("rl"):
        print("held", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
async def holder(proxy: Proxy, clock: ManualClock) -> AsyncIterator[HttpSandboxManager]:
    """A manager that lives by the server's clock, and a pool of one sandbox."""
    async with HttpSandboxManager(base_url=proxy.url, keep_alive=60, clock=clock) as manager:
        await manager.create_pool(PoolSpec(name="rl", warm=1, max=1))
        await manager.wait_pool_warm("rl")
        yield manager


async def leased(manager: HttpSandboxManager) -> int:
    return (await manager.get_pool("rl")).leased


async def test_a_lease_lasts_while_its_holder_lives(
    holder: HttpSandboxManager, clock: ManualClock, proxy: Proxy
) -> None:
    async with holder.lease("rl") as sandbox:
        for calls in range(1, 10):
            await clock.advance(15)
            while proxy.count("POST /v1/leases") < calls:
                await anyio.lowlevel.checkpoint()
            await sandbox.ping()
        assert await leased(holder) == 1
    assert await leased(holder) == 0


async def test_a_lease_outlives_calls_that_keep_it_alive_in_vain(
    holder: HttpSandboxManager, clock: ManualClock, proxy: Proxy
) -> None:
    async with holder.lease("rl"):
        proxy.fates("POST /v1/leases", "refuse", "refuse")
        for calls in range(1, 9):
            await clock.advance(15)
            while proxy.count("POST /v1/leases") < calls:
                await anyio.lowlevel.checkpoint()
        assert await leased(holder) == 1


@pytest.mark.slow
async def test_the_lease_of_a_killed_holder_ends(
    holder: HttpSandboxManager, clock: ManualClock
) -> None:
    program = [sys.executable, "-c", HOLDER.format(url=holder.base_url)]
    async with await anyio.open_process(program) as process:
        assert process.stdout is not None
        assert (await process.stdout.receive()).strip() == b"held"
        process.kill()
    assert await leased(holder) == 1
    await clock.advance(61)
    async with holder.lease("rl", timeout=10) as sandbox:
        await sandbox.ping()


async def test_a_lease_that_the_server_has_ended_is_over_for_its_holder_too(
    holder: HttpSandboxManager, proxy: Proxy
) -> None:
    async with holder.lease("rl"):
        await holder.delete_pool("rl", force=True)
    assert proxy.count("DELETE /v1/leases") == 1


async def test_a_sandbox_whose_borrower_was_cancelled_is_not_used_again(
    holder: HttpSandboxManager, proxy: Proxy
) -> None:
    with anyio.CancelScope() as scope:
        async with holder.lease("rl"):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert await leased(holder) == 0
    assert proxy.seen[-2].startswith("DELETE /v1/leases")
    assert proxy.seen[-2].endswith("?spoilt=true")


async def test_a_block_ends_although_the_server_is_gone(
    holder: HttpSandboxManager, proxy: Proxy, clock: ManualClock
) -> None:
    has_ended = anyio.Event()

    async def fail() -> None:
        async with holder.lease("rl"):
            proxy.decide = lambda _: "gateway"
            raise ZeroDivisionError

    async def expect_failure() -> None:
        with pytest.raises(ZeroDivisionError):
            await fail()
        has_ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(expect_failure)
        while not has_ended.is_set():
            await clock.advance(0.1)
    proxy.decide = lambda _: "pass"


async def test_a_manager_that_stops_gives_back_what_it_has_borrowed(
    holder: HttpSandboxManager, proxy: Proxy
) -> None:
    other = HttpSandboxManager(base_url=proxy.url)
    await other.start()
    await other.lease("rl").__aenter__()
    assert await leased(holder) == 1
    await other.stop()
    assert await leased(holder) == 0
