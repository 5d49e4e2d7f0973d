"""Items that last for a time: handed out with enough of it left, and replaced before they go."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import AcquireTimeout
from sandpool.pool import Lease, Policy, Pool
from sandpool.pool.member import Member
from sandpool.pool.slots import SlotId
from sandpool.testing import FakeFactory, FakeItem, ManualClock
from sandpool.testing.fake_factory import Way

pytestmark = pytest.mark.anyio

times = st.floats(0.001, 1e6)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def factory(clock: ManualClock) -> FakeFactory:
    return FakeFactory(clock)


def chances(*values: float) -> Callable[[], float]:
    left = list(values)
    return lambda: left.pop(0) if left else 0.0


def member(
    *, created_at: float = 0.0, lifetime: float | None, took: float = 0.0, haste: float = 0.0
) -> Member[FakeItem]:
    return Member(
        SlotId(1),
        FakeItem(0),
        FakeFactory(ManualClock()),
        generation=0,
        created_at=created_at,
        ends_at=None if lifetime is None else created_at + lifetime,
        took=took,
        haste=haste,
    )


@given(created_at=times, lifetime=times, share=st.floats(0, 0.99))
def test_a_member_is_over_at_the_first_moment_that_it_is_of_no_use(
    created_at: float, lifetime: float, share: float
) -> None:
    policy = Policy(lifetime=lifetime, min_remaining=lifetime * share)
    found = member(created_at=created_at, lifetime=lifetime)
    over = found.over_at(policy)
    assert not found.fits(policy.min_remaining, over)
    # A step of a float before it may or may not be enough; a millionth of the life is.
    before = over - lifetime * 1e-6 - 1e-6
    assert before < created_at or found.fits(policy.min_remaining, before)


@given(took=times, haste=st.floats(0, 1), share=st.floats(0, 0.9), spread=st.floats(0, 0.5))
def test_a_replacement_begins_within_the_second_half_of_the_useful_life(
    took: float, haste: float, share: float, spread: float
) -> None:
    policy = Policy(lifetime=100, min_remaining=100 * share, expiry_spread=spread)
    found = member(lifetime=100, took=took, haste=haste)
    over = found.over_at(policy)
    assert over / 2 * (1 - 1e-9) <= found.replace_at(policy) <= over


def test_what_never_ends_is_never_replaced() -> None:
    found = member(lifetime=None)
    assert found.over_at(Policy()) == found.replace_at(Policy()) == math.inf


async def test_stock_never_dips_while_its_items_expire(
    clock: ManualClock, factory: FakeFactory
) -> None:
    factory.ways["create"] = "slow"
    policy = Policy(warm=3, max=6, lifetime=100, min_remaining=40, expiry_spread=0.3)
    async with Pool(factory, policy, clock=clock, chance=chances(0.1, 0.5, 0.9)) as pool:
        await clock.advance(1.0)
        first = {item.number for item in pool.idle()}
        for _ in range(80):
            await clock.advance(1.0)
            assert pool.stats().ready >= 3
        assert not first & {item.number for item in pool.idle()}


async def test_without_room_stock_is_replaced_when_it_has_to_be(
    clock: ManualClock, factory: FakeFactory
) -> None:
    policy = Policy(warm=2, max=2, lifetime=100, min_remaining=40)
    async with Pool(factory, policy, clock=clock) as pool:
        await pool.wait_warm()
        await clock.advance(60.0)
        assert {item.number for item in pool.idle()} == {0, 1}
        await clock.advance(0.1)
        assert {item.number for item in pool.idle()} == {2, 3}


async def test_items_of_one_age_are_not_replaced_at_one_time(
    clock: ManualClock, factory: FakeFactory
) -> None:
    policy = Policy(warm=4, max=8, lifetime=100, expiry_spread=0.4)
    async with Pool(factory, policy, clock=clock, chance=chances(0, 0.25, 0.5, 0.75)) as pool:
        await pool.wait_warm()
        replaced: list[int] = []
        for _ in range(10):
            replaced.append(len(factory.items) - 4)
            await clock.advance(10.0)
        assert replaced == [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]


async def test_the_longest_ready_goes_out_first_where_that_is_the_policy(
    clock: ManualClock, factory: FakeFactory
) -> None:
    async with Pool(factory, Policy(warm=3, max=9, oldest_first=True), clock=clock) as pool:
        await pool.wait_warm()
        leases = [pool.acquire_nowait() for _ in range(3)]
        assert [lease.item.number for lease in leases] == [0, 1, 2]


async def test_a_check_that_eats_the_remaining_life_leads_to_the_next_item(
    clock: ManualClock, factory: FakeFactory
) -> None:
    policy = Policy(
        warm=1, max=4, lifetime=100, min_remaining=50, oldest_first=True, check_timeout=30
    )
    async with Pool(factory, policy, clock=clock) as pool:
        await pool.wait_warm()
        await clock.advance(45.0)
        factory.slow_seconds = 10.0
        factory.plan("check", "slow")
        found: list[Lease[FakeItem]] = []

        async def claim() -> None:
            found.append(await pool.acquire(check=True))

        async with anyio.create_task_group() as group:
            group.start_soon(claim)
            await clock.advance(10.0)
        (lease,) = found
        assert lease.expires_at is not None
        assert lease.expires_at - clock.now() >= 50
        assert lease.item.number != 0


shares = st.floats(0, 0.95)
visits = st.lists(
    st.tuples(
        st.sampled_from(["ok", "slow", "error"]),  # how the next check goes
        st.none() | shares,  # the share of the lifetime that the caller needs
        st.booleans(),  # whether it wants a check
        shares,  # the share of the lifetime that passes until the next caller
    ),
    min_size=1,
    max_size=8,
)


@given(
    lifetime=st.floats(30, 300),
    least=shares,
    spread=st.floats(0, 0.5),
    chance=st.floats(0, 1),
    slow=st.floats(0.1, 20),
    warm=st.integers(0, 4),
    oldest_first=st.booleans(),
    callers=visits,
)
async def test_nobody_gets_an_item_with_too_little_time_left(
    lifetime: float,
    least: float,
    spread: float,
    chance: float,
    slow: float,
    warm: int,
    oldest_first: bool,
    callers: list[tuple[Way, float | None, bool, float]],
) -> None:
    clock = ManualClock()
    factory = FakeFactory(clock, slow_seconds=slow)
    policy = Policy(
        warm=warm,
        max=5,
        lifetime=lifetime,
        min_remaining=lifetime * least,
        expiry_spread=spread,
        oldest_first=oldest_first,
        check_timeout=30,
    )
    async with Pool(factory, policy, clock=clock, chance=lambda: chance) as pool:

        async def claim(need: float | None, check: bool) -> None:
            try:
                lease = await pool.acquire(timeout=50, min_remaining=need, check=check)
            except AcquireTimeout:
                return
            assert lease.expires_at is not None
            left = lease.expires_at - clock.now()
            assert left >= (policy.min_remaining if need is None else need)
            assert left > 0
            lease.release_nowait()

        async with anyio.create_task_group() as group:
            for way, share, check, pause in callers:
                if check:
                    factory.plan("check", way)
                need = None if share is None else lifetime * share
                group.start_soon(claim, need, check)
                await clock.advance(lifetime * pause)
            await clock.advance(60.0)
