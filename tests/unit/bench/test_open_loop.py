"""Calls begin when they are due, whatever those before them do."""

from __future__ import annotations

import itertools
import time

import anyio
import pytest

from sandpool.bench.open_loop import drive
from sandpool.bench.timer import Timer
from sandpool.errors import SandpoolError

pytestmark = pytest.mark.anyio


async def test_no_call_waits_for_the_one_before_it() -> None:
    last = anyio.Event()
    intended: list[float] = []

    async def call(at: float) -> None:
        intended.append(at)
        if len(intended) == 3:
            last.set()
        await last.wait()  # a closed loop would never get to the third

    course = await drive([0.0, 0.01, 0.02], call)
    assert (course.served, course.failed, course.unserved) == (3, 0, 0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(intended)]
    assert gaps == pytest.approx([0.01, 0.01])


async def test_a_call_never_begins_before_it_is_due() -> None:
    early: list[float] = []

    async def call(at: float) -> None:
        if time.perf_counter() < at:
            early.append(at)

    await drive([0.0, 0.0, 0.005, 0.006, 0.02], call)
    assert early == []


async def test_failures_and_calls_without_end_are_counted() -> None:
    async def call(at: float) -> None:
        number = len(begun)
        begun.append(at)
        if number == 1:
            raise SandpoolError("on purpose")
        if number == 2:
            await anyio.sleep_forever()

    begun: list[float] = []
    course = await drive([0.0, 0.0, 0.0, 0.001], call, patience=0.05)
    assert (course.served, course.failed, course.unserved) == (2, 1, 1)
    assert course.lost == 2
    assert course.took > 0


async def test_a_mistake_in_a_call_is_not_taken_for_a_failure() -> None:
    async def call(at: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await drive([0.0], call)
    assert caught.group_contains(ZeroDivisionError)


async def test_a_timer_does_not_end_before_its_time_nor_wait_for_the_past() -> None:
    with Timer() as timer:
        at = time.perf_counter() + 0.003
        await timer.until(at)
        assert time.perf_counter() >= at
        await timer.until(at)
