"""Calls that come when they are due, whether or not those before them have been answered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from sandpool.bench.timer import Timer
from sandpool.errors import SandpoolError

_LEAD = 0.05
"""Seconds between the making of a schedule and its zero."""
_PATIENCE = 10.0
"""Seconds after the last arrival in which what is still waiting may be served."""


@dataclass(frozen=True, slots=True)
class Course:
    """How one run went."""

    took: float
    """Seconds from its zero to the end of the last call."""
    served: int
    failed: int
    """Calls that raised an error of ours."""
    unserved: int
    """Calls that had not ended when patience did."""

    @property
    def lost(self) -> int:
        """Calls that were not served, for either reason; a figure says so, or they were hidden."""
        return self.failed + self.unserved


async def drive(
    starts: Sequence[float],
    call: Callable[[float], Awaitable[None]],
    *,
    patience: float = _PATIENCE,
) -> Course:
    """Call `call(intended)` at each of these seconds, with the time of `time.perf_counter()`.

    Calls that do not end within `patience` after the last start are cancelled.
    """
    served = failed = 0
    last = zero = time.perf_counter() + _LEAD

    async def one(intended: float) -> None:
        nonlocal served, failed, last
        try:
            await call(intended)
        except SandpoolError:
            failed += 1
        else:
            served += 1
        last = max(last, time.perf_counter())

    with Timer() as timer, anyio.move_on_after(_LEAD + starts[-1] + patience):
        async with anyio.create_task_group() as group:
            for start in starts:
                await timer.until(zero + start)
                group.start_soon(one, zero + start)
    return Course(last - zero, served, failed, len(starts) - served - failed)
