"""`within`: a bound on how long something may take, on a pool's clock; `Nap`: a sleep on it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
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


class Nap:
    """A sleep of one task, which others may shorten."""

    def __init__(self, clock: Clock) -> None:
        """Begin awake."""
        self._clock = clock
        self._ends_at = 0.0
        """When it ends by itself."""
        self._scope: anyio.CancelScope | None = None
        self._bell = anyio.Event()

    async def until(self, when: float) -> None:
        """Sleep until then, on the pool's clock."""
        self._ends_at = when
        self._scope, self._bell = anyio.CancelScope(), anyio.Event()
        seconds = max(0.0, when - self._clock.now())
        with suppress(TimeoutError):
            await within(self._clock, seconds, self._bell.wait, self._scope)

    def end_by(self, when: float) -> None:
        """Sleep no longer than until then."""
        if when >= self._ends_at:
            return
        if self._scope is not None and isinstance(self._clock, MonotonicClock):
            # To move the timer costs less than to wake who would only set another one.
            self._ends_at = when
            self._scope.deadline = _whole(when)
        else:
            self._bell.set()

    def end(self) -> None:
        """Wake up."""
        self._bell.set()
