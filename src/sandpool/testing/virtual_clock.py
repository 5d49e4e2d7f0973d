"""`VirtualClock`: time that jumps to the next timer as soon as nothing else is left to do.

A day of a pool's life passes in the seconds that its decisions take.  The clock brings an event
loop of its own, which keeps this time for all that runs on it, anyio's timeouts included:

    clock = VirtualClock()
    clock.run(main)

    V1  Time never goes back.
    V2  It stands still while anything can run, and stops at every timer.  Only who polls without
        ever waiting sees it pass, a tick for every thousand turns of the loop.

What happens outside the loop, in threads or other processes, has no part in this time: what waits
for it and for a timer sees the timer first.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar, TypeVarTuple

import anyio

from sandpool.clock import MonotonicClock
from sandpool.testing.manual_clock import BEGINNING

_TURNS_PER_TICK = 1_000
_TICK = 0.001

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualClock(MonotonicClock):
    """Implements `sandpool.clock.Clock`; begins at 0 s, which is 2026-01-01T00:00Z.

    It is a `MonotonicClock` in that the event loop keeps this very time, so that whoever bounds
    work by the loop's own timers can do so here.
    """

    def __init__(self) -> None:
        """Stand at the beginning."""
        self._now = 0.0

    def now(self) -> float:
        """Return the seconds that have passed on the loops of this clock."""
        return self._now

    def utc(self) -> datetime:
        """Return the date that goes with `now`."""
        return BEGINNING + timedelta(seconds=self._now)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop that keeps this clock's time; anyio calls it a `loop_factory`."""
        return _VirtualLoop(self)

    def run(self, main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run a program on a loop of this clock, and return what it returns."""
        return anyio.run(main, *args, backend_options={"loop_factory": self.new_loop})

    def pass_by(self, seconds: float) -> None:
        """Let time pass; called by a loop that has nothing to do for so long."""
        self._now += seconds


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Jumper(clock))
        self._clock = clock

    def time(self) -> float:
        return self._clock.now()


class _Jumper(selectors.DefaultSelector):
    """Does not wait until a timer is due, but lets that time have passed."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._turns = 0
        """Of the loop, since time has passed."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without any timer there is nothing to jump to: only the world outside can go on.
        ready = super().select(None if timeout is None else 0)
        self._turns += 1
        if not ready and timeout:  # Invariant V2
            self._turns = 0
            self._clock.pass_by(timeout)
        elif self._turns >= _TURNS_PER_TICK:
            # Who polls takes time too; without this it would never see what it polls for.
            self._turns = 0
            self._clock.pass_by(_TICK)
        return ready
