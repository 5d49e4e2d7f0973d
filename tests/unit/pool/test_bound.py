"""The bounds and sleeps of a pool, on the loop's own time and on a clock that tests move."""

from __future__ import annotations

import math

import anyio
import pytest

from sandpool.clock import Clock, MonotonicClock
from sandpool.pool.bound import Nap, within
from sandpool.testing import ManualClock

pytestmark = pytest.mark.anyio

LONG = 3600.0


@pytest.fixture(params=[MonotonicClock, ManualClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


async def test_a_nap_can_be_shortened_while_it_lasts(clock: Clock) -> None:
    nap = Nap(clock)
    async with anyio.create_task_group() as group:
        group.start_soon(nap.until, clock.now() + LONG)
        await anyio.wait_all_tasks_blocked()
        nap.end_by(clock.now())


async def test_a_nap_is_as_long_the_second_time(clock: Clock) -> None:
    nap, naps = Nap(clock), 0

    async def sleep() -> None:
        nonlocal naps
        for _ in range(2):
            await nap.until(clock.now() + LONG)
            naps += 1

    async with anyio.create_task_group() as group:
        group.start_soon(sleep)
        await anyio.wait_all_tasks_blocked()
        nap.end_by(clock.now() - 1)
        await anyio.wait_all_tasks_blocked()
        assert naps == 1
        nap.end()


async def test_work_in_a_scope_can_be_cancelled_by_whoever_has_it(clock: Clock) -> None:
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:

        async def work() -> None:
            with pytest.raises(TimeoutError):
                await within(clock, LONG, anyio.sleep_forever, scope)

        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()


async def test_work_in_a_shielded_scope_ends_by_its_bound_only(clock: Clock) -> None:
    ended = anyio.Event()
    done: list[str] = []

    async def work() -> None:
        await ended.wait()
        done.append("work")

    async with anyio.create_task_group() as group:
        group.start_soon(within, clock, LONG, work, anyio.CancelScope(shield=True))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        ended.set()
    assert done == ["work"]


@pytest.mark.parametrize("seconds", [60.0, 60.000_25, 60.000_75])
async def test_a_bound_is_the_next_moment_that_every_event_loop_can_tell(seconds: float) -> None:
    clock = MonotonicClock()
    found: list[float] = []

    async def work() -> None:
        found.append(anyio.current_effective_deadline())

    before = clock.now()
    await within(clock, seconds, work)
    assert found[0] == round(found[0] * 1000) / 1000
    assert before + seconds <= found[0] <= clock.now() + seconds + 0.001


async def test_what_has_no_bound_is_not_given_one() -> None:
    async def work() -> float:
        return anyio.current_effective_deadline()

    assert await within(MonotonicClock(), math.inf, work) == math.inf


async def test_what_takes_too_long_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await within(MonotonicClock(), 0, anyio.sleep_forever)
