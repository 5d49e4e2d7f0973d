"""How long something may take."""

from __future__ import annotations

import math

import anyio
import pytest

from sandpool.clock import MonotonicClock
from sandpool.pool.bound import within

pytestmark = pytest.mark.anyio


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
