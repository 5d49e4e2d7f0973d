"""Faults of everything round a pool: backends that hang, callbacks that raise, loops that die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from sandpool.errors import AcquireTimeout, InvalidSpec, PoolClosed
from sandpool.pool import Event, Lease, Policy, Pool, Stats
from sandpool.pool.backoff import Backoff
from sandpool.testing import FakeFactory, FakeItem, ManualClock

aio = pytest.mark.anyio

Loop = asyncio.AbstractEventLoop
Tasks = list["asyncio.Task[None]"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def factory(clock: ManualClock) -> FakeFactory:
    return FakeFactory(clock)


def new_pool(factory: FakeFactory, clock: ManualClock, **policy: object) -> Pool[FakeItem]:
    settings = {"warm": 2, "max": 4, **policy}
    return Pool(
        factory,
        Policy(**settings),  # type: ignore[arg-type]
        clock=clock,
        backoff=Backoff(lambda: 1.0),
    )


async def settle() -> None:
    await anyio.wait_all_tasks_blocked()


def is_balanced(stats: Stats) -> bool:
    return stats.created == stats.destroyed + stats.alive


def fail(_: object) -> None:
    raise RuntimeError("a callback that fails")


# Checks.


@aio
async def test_a_caller_that_does_not_wait_still_gets_a_checked_item(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=1, max=1, check_at_handover=True) as pool:
        await pool.wait_warm()
        factory.ways["check"] = "slow"
        async with anyio.create_task_group() as group:
            group.start_soon(clock.advance, 2)
            lease = await pool.acquire(timeout=0)
        assert lease.item.checks == 1


@aio
async def test_the_callers_deadline_in_a_check_costs_no_healthy_item(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=1, max=1, check_timeout=100) as pool:
        await pool.wait_warm()
        factory.slow_seconds = 10
        factory.plan("check", "slow")

        async def call() -> None:
            with pytest.raises(AcquireTimeout) as caught:
                await pool.acquire(timeout=3, check=True)
            assert caught.value.step == "check"

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await clock.advance(4)
        assert factory.items[0].is_alive
        assert pool.stats().ready == 1


@aio
async def test_stock_can_be_had_while_some_of_it_is_looked_at(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=4, max=4, check_interval=10) as pool:
        await pool.wait_warm()
        factory.slow_seconds = 3
        factory.ways["check"] = "slow"
        await clock.advance(11)
        for _ in range(3):
            pool.acquire_nowait()


@aio
async def test_every_idle_item_is_looked_at_in_the_end(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=4, max=4, check_interval=10) as pool:
        await pool.wait_warm()
        factory.slow_seconds = 1
        factory.ways["check"] = "slow"
        await clock.advance(15)
        assert [item.checks for item in factory.items] == [1, 1, 1, 1]
        assert factory.calls["create"] == 4


@aio
async def test_an_idle_item_found_unhealthy_is_replaced_at_once(
    factory: FakeFactory, clock: ManualClock
) -> None:
    policy = {"check_interval": 10, "maintain_every": 1000}
    async with new_pool(factory, clock, warm=1, max=2, **policy) as pool:
        await pool.wait_warm()
        factory.plan("check", "error")
        await clock.advance(10.1)
        await settle()
        assert not factory.items[0].is_alive
        assert pool.stats().ready == 1


# Ends that overlap.


@aio
async def test_two_closes_destroy_once(factory: FakeFactory, clock: ManualClock) -> None:
    pool = new_pool(factory, clock)
    factory.ways["destroy"] = "slow"
    async with anyio.create_task_group() as group:
        await group.start(pool.run)
        await pool.wait_warm()
        group.start_soon(pool.aclose)
        await settle()
        group.start_soon(pool.aclose)
        await clock.advance(5)
    assert factory.calls["destroy"] == 2
    assert is_balanced(pool.stats())


@aio
async def test_a_cancelled_run_lends_and_makes_nothing_while_it_ends(
    factory: FakeFactory, clock: ManualClock
) -> None:
    pool = new_pool(factory, clock)
    async with anyio.create_task_group() as outer:
        scope = anyio.CancelScope()
        has_started = anyio.Event()

        async def run() -> None:
            with scope:
                async with anyio.create_task_group() as group:
                    await group.start(pool.run)
                    has_started.set()

        outer.start_soon(run)
        await has_started.wait()
        await pool.wait_warm()
        factory.ways.update({"destroy": "slow", "create": "never"})
        pool.acquire_nowait().release_nowait()
        await settle()
        created = factory.calls["create"]
        scope.cancel()
        await settle()
        with pytest.raises(PoolClosed):
            pool.acquire_nowait()
        assert factory.calls["create"] == created
        outer.start_soon(clock.advance, 30)
    assert is_balanced(pool.stats())


@aio
async def test_whoever_waits_for_warmth_learns_that_the_pool_drains(
    factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["create"] = "never"
    async with new_pool(factory, clock) as pool, anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(PoolClosed):
                await pool.wait_warm()

        group.start_soon(wait)
        await settle()
        await pool.drain()


@aio
async def test_entering_a_closed_pool_says_so_plainly(
    factory: FakeFactory, clock: ManualClock
) -> None:
    pool = new_pool(factory, clock)
    await pool.aclose()
    with pytest.raises(PoolClosed):
        async with pool:
            pass


@aio
async def test_a_cancelled_block_gives_its_item_up(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=1, max=1, recycle="reuse") as pool:
        await pool.wait_warm()
        with anyio.CancelScope() as scope:
            async with await pool.acquire():
                scope.cancel()
                await anyio.sleep_forever()
        await settle()
        assert not factory.items[0].is_alive


# Bounds.


@aio
async def test_a_shorter_lifetime_sends_away_who_can_never_be_served(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=1, max=1, lifetime=100) as pool:
        await pool.acquire()

        async def wait() -> None:
            with pytest.raises(InvalidSpec):
                await pool.acquire(min_remaining=50)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await settle()
            pool.update(Policy(warm=1, max=2, lifetime=10))
        await settle()
        assert factory.calls["create"] == 2


@aio
async def test_items_whose_end_hangs_never_outnumber_the_pool(
    factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["destroy"] = "never"
    async with new_pool(factory, clock, warm=1, max=2, destroy_timeout=10) as pool:
        for _ in range(3):
            await settle()
            pool.acquire_nowait().release_nowait()
        await settle()
        stuck = pool.stats()
        await clock.advance(11)
        healed = pool.stats()
        factory.ways["destroy"] = "ok"
    assert (stuck.destroying, stuck.ready, stuck.creating) == (3, 0, 0)
    assert healed.ready == 1, "the pool goes on once they are given up"


@aio
async def test_a_refill_is_put_off_while_nobody_waits(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, refill_delay=0.5, warm=2, max=4) as pool:
        await pool.wait_warm()
        pool.acquire_nowait()
        await clock.advance(0.3)
        pool.acquire_nowait()
        assert pool.stats().creating == 0
        await clock.advance(0.3)
        await settle()
        assert pool.stats().ready == 2, "the second lease has not put it off again"


@aio
async def test_a_refill_is_not_put_off_for_those_who_wait(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, refill_delay=1000, warm=1, max=2) as pool:
        await pool.wait_warm()
        pool.acquire_nowait()
        with anyio.fail_after(60):
            await pool.acquire()


# Callbacks.


@aio
async def test_a_failing_listener_of_a_lease_loses_no_place(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock, warm=0, max=1) as pool:
        lease = await pool.acquire()
        lease.on_end(fail)
        lease.release_nowait()
        lease.on_end(fail)
        await settle()
        assert pool.stats().leased == 0


@aio
async def test_a_failing_listener_of_a_lease_does_not_stop_the_close(
    factory: FakeFactory, clock: ManualClock
) -> None:
    async with new_pool(factory, clock) as pool:
        await pool.wait_warm()
        pool.acquire_nowait().on_end(fail)
    assert not factory.alive


@aio
async def test_a_failing_listener_of_events_does_not_stop_the_pool(
    factory: FakeFactory, clock: ManualClock
) -> None:
    def listen(event: Event) -> None:
        fail(event)

    async with Pool(factory, Policy(warm=1, max=1), clock=clock, on_event=listen) as pool:
        await pool.wait_warm()


# Event loops that are closed with the pool still running in them.


def abandon(
    pool: Pool[FakeItem],
    use: Callable[[Pool[FakeItem], Loop], Awaitable[Lease[FakeItem] | None]],
    tasks: Tasks,
) -> Lease[FakeItem] | None:
    """Run `pool` on a loop of its own and close that loop in the middle of everything."""
    loop = asyncio.new_event_loop()
    tasks.append(loop.create_task(pool.run()))
    loop.run_until_complete(turn())
    found = loop.run_until_complete(use(pool, loop))
    loop.run_until_complete(turn())
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    return found


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def lend(pool: Pool[FakeItem], loop: Loop) -> Lease[FakeItem]:
    return await pool.acquire()


def test_a_lease_can_be_released_after_its_loop_has_died(
    factory: FakeFactory, clock: ManualClock
) -> None:
    lease = abandon(new_pool(factory, clock), lend, [])
    assert lease is not None
    lease.release_nowait()
    assert lease.is_over


def test_a_pool_whose_loop_has_died_can_be_closed(factory: FakeFactory, clock: ManualClock) -> None:
    pool = new_pool(factory, clock)
    abandon(pool, lend, [])
    anyio.run(pool.aclose)
    assert not factory.alive
    assert is_balanced(pool.stats())


def test_callers_that_waited_in_a_dead_loop_get_nothing(
    factory: FakeFactory, clock: ManualClock
) -> None:
    pool = new_pool(factory, clock, warm=0, max=1)
    tasks: Tasks = []

    async def lend_and_queue(pool: Pool[FakeItem], loop: Loop) -> Lease[FakeItem]:
        lease = await pool.acquire()

        async def queue() -> None:
            await pool.acquire()

        tasks.append(loop.create_task(queue()))
        return lease

    lease = abandon(pool, lend_and_queue, tasks)
    assert lease is not None

    async def go_on() -> None:
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            lease.release_nowait()
            with anyio.fail_after(60):
                await pool.acquire()
            await pool.aclose()

    anyio.run(go_on)


def test_a_pool_lends_nothing_on_a_loop_that_it_does_not_run_on(
    factory: FakeFactory, clock: ManualClock
) -> None:
    pool = new_pool(factory, clock)
    abandon(pool, lend, [])

    async def ask() -> None:
        with pytest.raises(PoolClosed):
            await pool.acquire()

    anyio.run(ask)
    assert pool.stats().leased == 1


def test_a_loop_that_died_during_a_look_leaves_no_item_behind(
    factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["check"] = "never"
    pool = new_pool(factory, clock, warm=2, max=2, check_interval=10)

    async def look(pool: Pool[FakeItem], loop: Loop) -> None:
        await clock.advance(10.1)

    abandon(pool, look, [])
    assert factory.calls["check"] == 1

    async def go_on() -> None:
        factory.ways.clear()
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            await settle()
            for _ in range(2):
                pool.acquire_nowait()
            await settle()
            stats = pool.stats()
            await pool.aclose()
        assert stats.ready + stats.creating + stats.leased <= stats.max

    anyio.run(go_on)
