"""`ManualClock`: time that passes only when a test says so."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

_TURNS = 20
"""Of the event loop, that whoever was woken has to do what follows from it."""


class ManualClock:
    """Implements `sandpool.clock.Clock`; begins at 0 s, which is 2026-01-01T00:00Z."""

    def __init__(self) -> None:
        """Stand at the beginning."""
        self._now = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._count = 0

    def now(self) -> float:
        """Return the seconds that have been advanced so far."""
        return self._now

    def utc(self) -> datetime:
        """Return the date that goes with `now`."""
        return BEGINNING + timedelta(seconds=self._now)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by `seconds`."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        self._count += 1
        sleeper = (self._now + seconds, self._count, anyio.Event())
        heapq.heappush(self._sleepers, sleeper)
        try:
            await sleeper[2].wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let time pass: wake the sleepers in order, each at its time, and let everybody settle."""
        end = self._now + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, event = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            event.set()
            await _settle()
        self._now = end
        await _settle()


async def _settle() -> None:
    # What has been woken is done in a few turns; asking whether all wait costs 0.1 s if they don't.
    for _ in range(_TURNS):
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
