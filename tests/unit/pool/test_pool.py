"""The pool on items that are nothing: order, refill, health, age, limits and ends."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from sandpool.errors import (
    AcquireTimeout,
    InvalidSpec,
    LeaseOver,
    NoCapacity,
    PoolClosed,
    PoolDegraded,
    PoolInUse,
)
from sandpool.pool import Event, Lease, Policy, Pool, Stats
from sandpool.pool.backoff import Backoff
from sandpool.testing import FakeFactory, FakeItem, ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def factory(clock: ManualClock) -> FakeFactory:
    return FakeFactory(clock)


Make = Callable[..., Pool[FakeItem]]


@pytest.fixture
def make(clock: ManualClock, factory: FakeFactory) -> Make:
    def make(**policy: object) -> Pool[FakeItem]:
        settings = {"warm": 2, "max": 4, **policy}
        return Pool(
            factory,
            Policy(**settings),  # type: ignore[arg-type]
            clock=clock,
            backoff=Backoff(lambda: 1.0),
        )

    return make


def balanced(stats: Stats, factory: FakeFactory) -> bool:
    return (
        stats.created == stats.destroyed + stats.alive == len(factory.items)
        and stats.ready + stats.leased + stats.creating + stats.resetting <= stats.max
    )


async def settle() -> None:
    await anyio.wait_all_tasks_blocked()


# Stock and refill.


async def test_a_pool_fills_itself(make: Make, factory: FakeFactory) -> None:
    async with make(warm=3) as pool:
        await pool.wait_warm()
        assert pool.stats().ready == 3
    assert not factory.alive


async def test_taking_one_starts_its_replacement_at_once(make: Make) -> None:
    async with make() as pool:
        await pool.wait_warm()
        lease = pool.acquire_nowait()
        assert pool.stats().creating == 1
        await settle()
        assert (pool.stats().ready, pool.stats().leased) == (2, 1)
        lease.release_nowait()


async def test_creations_at_one_time_are_bounded(make: Make, factory: FakeFactory) -> None:
    factory.ways["create"] = "slow"
    async with make(warm=8, max=8, builders=3) as pool:
        await settle()
        assert factory.calls["create"] == 3
        assert pool.stats().creating == 3


async def test_a_fresh_pool_never_lends_an_item_twice(make: Make, factory: FakeFactory) -> None:
    async with make() as pool:
        seen = set()
        for _ in range(10):
            async with await pool.acquire() as item:
                assert item.number not in seen
                seen.add(item.number)
        await settle()
        assert balanced(pool.stats(), factory)


async def test_the_newest_is_lent_first_and_for_reuse_the_oldest(make: Make) -> None:
    async with make(warm=3) as pool:
        await pool.wait_warm()
        assert [item.number for item in pool.idle()] == [2, 1, 0]
        assert pool.acquire_nowait().item.number == 2
    async with make(warm=3, recycle="reuse") as pool:
        await pool.wait_warm()
        first = pool.idle()
        lease = pool.acquire_nowait()
        assert lease.item is first[0]
        lease.release_nowait()
        assert pool.idle() == [*first[1:], first[0]]


async def test_an_item_that_is_reset_goes_back(make: Make, factory: FakeFactory) -> None:
    async with make(warm=1, max=1, recycle="reset") as pool:
        await pool.wait_warm()
        lease = pool.acquire_nowait()
        lease.release_nowait()
        assert pool.stats().resetting == 1
        await settle()
        assert pool.idle() == [lease.item]
        assert (lease.item.resets, len(factory.items)) == (1, 1)


async def test_a_reset_that_fails_destroys(make: Make, factory: FakeFactory) -> None:
    factory.ways["reset"] = "error"
    async with make(warm=1, max=1, recycle="reset") as pool:
        await pool.wait_warm()
        lease = pool.acquire_nowait()
        lease.release_nowait()
        await pool.wait_warm()
        assert not lease.item.is_alive
        assert pool.idle() != [lease.item]


async def test_a_discarded_item_is_never_reused(make: Make) -> None:
    async with make(warm=1, recycle="reuse") as pool:
        lease = await pool.acquire()
        await lease.discard()
        await settle()
        assert not lease.item.is_alive


# Waiting.


async def test_callers_are_served_in_the_order_in_which_they_came(make: Make) -> None:
    served: list[int] = []

    async def call(pool: Pool[FakeItem], number: int) -> None:
        async with await pool.acquire():
            served.append(number)

    async with make(warm=0, max=1) as pool:
        lease = await pool.acquire()
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(call, pool, number)
                await settle()
            lease.release_nowait()
    assert served == [0, 1, 2, 3, 4]


async def test_a_newcomer_never_overtakes_a_caller_that_waits(make: Make) -> None:
    async with make(warm=0, max=1) as pool, anyio.create_task_group() as group:
        lease = await pool.acquire()
        group.start_soon(pool.acquire)
        await settle()
        lease.release_nowait()
        with pytest.raises(NoCapacity):
            pool.acquire_nowait()
        await settle()
        assert pool.stats().leased == 1


async def test_a_wait_ends_with_its_time_and_says_what_it_was_for(
    make: Make, clock: ManualClock, factory: FakeFactory
) -> None:
    steps: list[str] = []

    async def call(pool: Pool[FakeItem]) -> None:
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(timeout=5)
        steps.append(caught.value.step)

    async with make(warm=0, max=1) as pool, anyio.create_task_group() as group:
        lease = await pool.acquire()
        group.start_soon(call, pool)
        await clock.advance(4.9)
        assert steps == []
        await clock.advance(0.2)
        assert steps == ["wait"]
        lease.release_nowait()
        factory.ways["create"] = "never"
        group.start_soon(call, pool)
        await clock.advance(5.1)
        assert steps == ["wait", "create"]
        assert pool.stats().waiting == 0


async def test_a_timeout_of_nothing_takes_what_is_there_or_fails_at_once(make: Make) -> None:
    async with make(warm=1, max=1) as pool:
        await pool.wait_warm()
        await pool.acquire(timeout=0)
        with pytest.raises(AcquireTimeout):
            await pool.acquire(timeout=0)


async def test_too_many_callers_are_refused(make: Make) -> None:
    async with make(warm=0, max=1, max_waiting=1) as pool, anyio.create_task_group() as group:
        await pool.acquire()
        group.start_soon(pool.acquire)
        await settle()
        with pytest.raises(NoCapacity):
            await pool.acquire()
        group.cancel_scope.cancel()


async def test_a_cancelled_caller_loses_nothing(make: Make, factory: FakeFactory) -> None:
    async with make(warm=0, max=1) as pool:
        lease = await pool.acquire()
        async with anyio.create_task_group() as group:
            group.start_soon(pool.acquire)
            await settle()
            # The item is on its way to the caller when the caller goes.
            lease.release_nowait()
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await settle()
        assert balanced(pool.stats(), factory)
        async with await pool.acquire():
            assert pool.stats().leased == 1


# Health.


async def test_an_unhealthy_item_is_never_handed_out(make: Make, factory: FakeFactory) -> None:
    async with make(check_at_handover=True) as pool:
        await pool.wait_warm()
        bad = pool.idle()[0]
        factory.plan("check", "error")
        async with await pool.acquire() as item:
            assert item is not bad
            assert item.checks == 1
        await settle()
        assert not bad.is_alive


async def test_a_check_that_hangs_is_bounded(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    async with make(warm=1, check_timeout=2) as pool, anyio.create_task_group() as group:
        await pool.wait_warm()
        factory.plan("check", "never")
        leases: list[Lease[FakeItem]] = []

        async def call() -> None:
            leases.append(await pool.acquire(check=True))

        group.start_soon(call)
        await clock.advance(2.1)
        assert [lease.item.number for lease in leases] == [1]


async def test_a_caller_cancelled_during_its_check_harms_no_item(
    make: Make, factory: FakeFactory
) -> None:
    async with make(warm=1) as pool:
        await pool.wait_warm()
        factory.plan("check", "never")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: pool.acquire(check=True))
            await settle()
            group.cancel_scope.cancel()
        assert [item.number for item in pool.idle()] == [0]


async def test_idle_items_are_looked_at(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    async with make(check_interval=10) as pool:
        await pool.wait_warm()
        first = pool.idle()
        await clock.advance(10.5)
        assert [item.checks for item in first] == [1, 1]
        assert pool.idle() == first
        factory.plan("check", "error")
        await clock.advance(10.5)
        await pool.wait_warm()
        assert sum(item.is_alive for item in first) == 1


async def test_a_dead_item_is_replaced_before_anybody_asks(make: Make) -> None:
    async with make() as pool:
        await pool.wait_warm()
        dead = pool.idle()[0]
        pool.report_dead(dead)
        await settle()
        assert dead not in pool.idle()
        assert pool.stats().ready == 2


async def test_an_item_that_died_while_it_was_lent_is_not_reused(make: Make) -> None:
    async with make(recycle="reuse") as pool:
        lease = await pool.acquire()
        pool.report_dead(lease.item)
        assert not lease.is_over
        lease.release_nowait()
        await settle()
        assert not lease.item.is_alive


# Life and age.


async def test_a_lease_ends_with_the_life_of_its_item(make: Make, clock: ManualClock) -> None:
    async with make(lifetime=60) as pool:
        lease = await pool.acquire()
        told: list[str] = []
        lease.on_end(told.append)
        await clock.advance(59)
        assert not lease.is_over
        await clock.advance(1.5)
        assert lease.is_over
        assert told == ["expired"]
        assert not lease.item.is_alive
        with pytest.raises(LeaseOver):
            lease.set_deadline(5)


async def test_a_lease_can_be_given_less_time(make: Make, clock: ManualClock) -> None:
    async with make(lifetime=60) as pool:
        short, unlimited = await pool.acquire(), await pool.acquire()
        short.set_deadline(5)
        unlimited.set_deadline(500)
        await clock.advance(5.5)
        assert (short.is_over, unlimited.is_over) == (True, False)
        await clock.advance(55)
        assert unlimited.is_over


async def test_idle_items_are_replaced_when_they_are_old(make: Make, clock: ManualClock) -> None:
    async with make(max_age=30) as pool:
        await pool.wait_warm()
        first = pool.idle()
        await clock.advance(31)
        assert not any(item.is_alive for item in first)
        assert pool.stats().ready == 2


async def test_a_claim_gets_only_what_has_enough_life_left(make: Make, clock: ManualClock) -> None:
    async with make(warm=1, max=2, lifetime=100) as pool:
        await pool.wait_warm()
        await clock.advance(60)
        old = pool.idle()[0]
        lease = await pool.acquire(min_remaining=50)
        assert lease.item is not old
        assert (await pool.acquire(min_remaining=10)).item is old
        with pytest.raises(InvalidSpec):
            await pool.acquire(min_remaining=100)


async def test_stock_too_old_for_a_claim_makes_room_for_it(make: Make, clock: ManualClock) -> None:
    async with make(warm=2, max=2, lifetime=100) as pool:
        await pool.wait_warm()
        old = pool.idle()
        await clock.advance(60)
        lease = await pool.acquire(min_remaining=50)
        assert lease.item not in old


# Failure.


async def test_a_pool_that_cannot_create_says_so_and_heals(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["create"] = "error"
    async with make(warm=1) as pool:
        await clock.advance(0.1 + 0.2)
        assert pool.stats().state == "degraded"
        with pytest.raises(PoolDegraded) as caught:
            await pool.acquire()
        assert "create was to fail" in str(caught.value.cause)
        with pytest.raises(PoolDegraded):
            await pool.wait_warm()
        factory.ways["create"] = "ok"
        await clock.advance(1)
        assert pool.stats().state == "open"
        async with await pool.acquire():
            assert pool.stats().create_failures == 3


async def test_callers_that_wait_are_told_when_the_pool_degrades(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["create"] = "error"
    told: list[BaseException | None] = []

    async def call(pool: Pool[FakeItem]) -> None:
        with pytest.raises(PoolDegraded) as caught:
            await pool.acquire()
        told.append(caught.value.cause)

    async with make(warm=0) as pool, anyio.create_task_group() as group:
        group.start_soon(call, pool)
        group.start_soon(call, pool)
        await clock.advance(2)
        assert len(told) == 2


async def test_a_pool_without_stock_heals_by_the_next_caller(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    factory.ways["create"] = "error"
    async with make(warm=0, degraded_after=1) as pool:
        with pytest.raises(PoolDegraded):
            await pool.acquire()
        factory.ways["create"] = "ok"
        with pytest.raises(PoolDegraded):
            await pool.acquire()
        await clock.advance(1)
        async with await pool.acquire():
            assert pool.state == "open"


async def test_a_creation_that_hangs_is_given_up(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    factory.plan("create", "never")
    async with make(warm=1, create_timeout=10) as pool:
        await clock.advance(10 + 0.2)
        assert pool.stats().ready == 1
        assert pool.stats().create_failures == 1


@pytest.mark.parametrize("way", ["error", "never"])
async def test_a_destruction_that_goes_wrong_is_counted_and_ends(
    make: Make, factory: FakeFactory, clock: ManualClock, way: str
) -> None:
    async with make(warm=1, destroy_timeout=3) as pool:
        await pool.wait_warm()
        factory.plan("destroy", way)  # type: ignore[arg-type]
        pool.acquire_nowait().release_nowait()
        await clock.advance(3.5)
        assert (pool.stats().destroyed, pool.stats().destroying) == (1, 0)


# Changes and ends.


async def test_a_pool_can_be_resized_while_it_runs(make: Make, factory: FakeFactory) -> None:
    async with make(warm=2, max=4) as pool:
        await pool.wait_warm()
        pool.resize(warm=4)
        await pool.wait_warm()
        assert pool.stats().ready == 4
        pool.resize(warm=1, max=1)
        await settle()
        assert pool.stats().ready == 1
        assert balanced(pool.stats(), factory)


async def test_leases_survive_a_smaller_maximum(make: Make, factory: FakeFactory) -> None:
    async with make(warm=0, max=4) as pool:
        leases = [await pool.acquire() for _ in range(4)]
        pool.resize(max=2)
        await settle()
        assert not any(lease.is_over for lease in leases)
        for lease in leases[:3]:
            lease.release_nowait()
        await settle()
        assert (pool.stats().leased, len(factory.alive)) == (1, 1)


async def test_replacing_leaves_nothing_of_the_old_kind(
    make: Make, factory: FakeFactory, clock: ManualClock
) -> None:
    other = FakeFactory(clock)
    async with make(recycle="reuse") as pool:
        await pool.wait_warm()
        lease = await pool.acquire()
        pool.replace_idle(other)
        await settle()
        assert factory.alive == [lease.item]
        lease.release_nowait()
        await settle()
        assert not factory.alive
        assert len(other.alive) == 2
    assert not other.alive


async def test_a_creation_of_the_old_kind_is_given_up_when_it_is_replaced(
    make: Make, factory: FakeFactory
) -> None:
    factory.ways["create"] = "never"
    async with make(warm=1) as pool:
        await settle()
        factory.ways["create"] = "ok"
        pool.replace_idle()
        await pool.wait_warm()
        assert pool.stats().create_failures == 0


async def test_draining_waits_for_the_leases(make: Make, clock: ManualClock) -> None:
    async with make() as pool, anyio.create_task_group() as group:
        lease = await pool.acquire()
        group.start_soon(pool.drain)
        await settle()
        assert pool.state == "draining"
        with pytest.raises(PoolClosed, match="draining"):
            await pool.acquire()
        group.start_soon(clock.advance, 6)
        with pytest.raises(TimeoutError):
            await pool.drain(timeout=5)
        lease.release_nowait()


async def test_closing_is_refused_while_there_are_leases_and_ends_them_by_force(
    make: Make, factory: FakeFactory
) -> None:
    async with make() as pool:
        lease = await pool.acquire()
        with pytest.raises(PoolInUse):
            await pool.aclose(force=False)
        assert not lease.is_over
        await pool.aclose()
        assert lease.is_over
        assert not factory.alive
        await pool.aclose()
        with pytest.raises(PoolClosed):
            await pool.acquire()


async def test_closing_sends_callers_away_and_gives_up_creations(
    make: Make, factory: FakeFactory
) -> None:
    factory.ways["create"] = "never"

    async def call(pool: Pool[FakeItem]) -> None:
        with pytest.raises(PoolClosed):
            await pool.acquire()

    async with make() as pool, anyio.create_task_group() as group:
        group.start_soon(call, pool)
        await settle()
        await pool.aclose()
    assert pool.stats().creating == 0


async def test_a_pool_that_is_not_open_says_so(make: Make) -> None:
    pool = make()
    with pytest.raises(PoolClosed, match="not open yet"):
        await pool.acquire()
    await pool.aclose()
    with pytest.raises(PoolClosed, match="is closed"):
        await pool.run()


async def test_an_exception_in_the_block_comes_out_as_it_is(
    make: Make, factory: FakeFactory
) -> None:
    async def fail() -> None:
        async with make() as pool:
            await pool.acquire()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert not factory.alive


async def test_what_happens_is_told(clock: ManualClock, factory: FakeFactory) -> None:
    events: list[Event] = []
    policy = Policy(warm=1, max=1)
    async with Pool(factory, policy, clock=clock, on_event=events.append) as pool:
        async with await pool.acquire():
            pass
        await pool.wait_warm()
    names = [type(event).__name__ for event in events]
    assert names[:5] == ["Created", "Leased", "Ended", "Destroyed", "Created"]


def test_a_pool_can_be_run_again_on_another_event_loop(clock: ManualClock) -> None:
    factory = FakeFactory(clock)
    pool: Pool[FakeItem] = Pool(factory, Policy(warm=2, max=4), clock=clock)

    async def use() -> None:
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            await pool.wait_warm()
            await pool.acquire()
            group.cancel_scope.cancel()

    for _ in range(2):
        anyio.run(use)
        assert pool.state == "new"
        assert not factory.alive
        assert balanced(pool.stats(), factory)


def test_a_pool_survives_the_death_of_its_event_loop(clock: ManualClock) -> None:
    import asyncio

    factory = FakeFactory(clock)
    pool: Pool[FakeItem] = Pool(factory, Policy(warm=2, max=4), clock=clock)
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.run())
    loop.run_until_complete(asyncio.sleep(0.01))
    assert pool.stats().ready == 2
    # Nobody cancels the task: the loop is simply closed under it.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()

    async def use() -> None:
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            await pool.wait_warm()
            assert len(factory.items) == 2
            await pool.aclose()

    anyio.run(use)
    assert not factory.alive
    assert balanced(pool.stats(), factory)
    del task
