"""`within`: a bound on how long something may take, on the pool's own clock."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from sandpool.clock import Clock, MonotonicClock

T = TypeVar("T")


async def within(
    clock: Clock,
    seconds: float,
    work: Callable[[], Awaitable[T]],
    scope: anyio.CancelScope | None = None,
) -> T:
    """Return what `work` returns; `TimeoutError` and a cancelled `work` after `seconds`.

    It is done in `scope`, by default a new one: one that is shielded, say, or that others cancel.
    """
    scope = anyio.CancelScope() if scope is None else scope
    if not isinstance(clock, MonotonicClock):
        return await _within_by_sleep(clock, seconds, work, scope)
    # The event loop keeps this very time, and its timers cost a tenth of a task.
    scope.deadline = _whole(clock.now() + seconds)
    with scope:
        return await work()
    raise TimeoutError(f"it took more than {seconds} s")


def _whole(moment: float) -> float:
    """Return the first whole millisecond that is not before `moment`.

    uvloop counts in those.  It calls for a moment between two of them at the earlier one, and anyio
    then asks to be called again, at once, a thousand times until the later one has come.
    """
    return math.ceil(moment * 1000) / 1000 if moment < math.inf else moment


async def _within_by_sleep(
    clock: Clock, seconds: float, work: Callable[[], Awaitable[T]], scope: anyio.CancelScope
) -> T:
    done: list[T] = []
    failed: list[Exception] = []
    is_late = False

    async def ring() -> None:
        nonlocal is_late
        await clock.sleep(seconds)
        is_late = True
        scope.cancel()

    # Whoever cannot cancel the work cannot keep the bell from ringing either.
    with anyio.CancelScope(shield=scope.shield):
        async with anyio.create_task_group() as group:
            with scope:
                group.start_soon(ring)
                try:
                    done.append(await work())
                except Exception as error:  # noqa: BLE001 (the group would wrap it)
                    failed.append(error)
            group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"it took more than {seconds} s" if is_late else "it was cancelled")
    return done[0]
