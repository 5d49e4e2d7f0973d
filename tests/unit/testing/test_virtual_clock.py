"""Time that jumps: it stops at every timer, never goes back, and costs nothing to wait for."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.pool.bound import within
from sandpool.testing import VirtualClock

naps = st.lists(st.floats(0, 1e5), min_size=1, max_size=20)


@given(naps=st.lists(naps, min_size=1, max_size=5))
def test_every_sleeper_wakes_at_its_time_and_time_never_goes_back(naps: list[list[float]]) -> None:
    clock = VirtualClock()
    seen: list[float] = []

    async def sleep(times: list[float]) -> None:
        for seconds in times:
            begun = clock.now()
            await clock.sleep(seconds)
            assert clock.now() == pytest.approx(begun + seconds, abs=1e-8)
            seen.append(clock.now())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for times in naps:
                group.start_soon(sleep, times)

    clock.run(main)
    assert seen == sorted(seen)
    assert clock.now() == pytest.approx(max(map(sum, naps)), abs=1e-6)


def test_anyios_own_timeouts_keep_this_time() -> None:
    clock = VirtualClock()

    async def main() -> None:
        with anyio.move_on_after(3600) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught

    clock.run(main)
    assert clock.now() == 3600


def test_a_bound_on_this_clock_is_one_of_its_loop() -> None:
    clock = VirtualClock()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await within(clock, 60, anyio.sleep_forever)

    clock.run(main)
    assert clock.now() == 60


def test_time_stands_still_while_there_is_work() -> None:
    clock = VirtualClock()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 1.0)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert clock.now() == 0.0

    clock.run(main)
    assert clock.now() == 1.0


def test_who_polls_sees_what_comes_with_time() -> None:
    clock = VirtualClock()

    async def main() -> None:
        come = anyio.Event()

        async def arrive() -> None:
            await clock.sleep(0.005)
            come.set()

        async with anyio.create_task_group() as group:
            group.start_soon(arrive)
            while not come.is_set():
                await anyio.lowlevel.checkpoint()

    clock.run(main)
    assert clock.now() == pytest.approx(0.005)


def test_a_clock_goes_on_where_its_last_loop_ended() -> None:
    clock = VirtualClock()
    clock.run(clock.sleep, 5.0)
    clock.run(clock.sleep, 5.0)
    assert clock.now() == 10.0
    assert clock.utc().second == 10
