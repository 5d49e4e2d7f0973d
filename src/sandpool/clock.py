"""Injected time: the one module that reads a clock.

Deadlines are monotonic seconds (`now`); times shown to people are aware UTC datetimes (`utc`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of sandpool needs of time."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean anything."""
        ...

    def utc(self) -> datetime:
        """Return the wall clock as an aware UTC datetime, for display and records only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; a cancellation point even for zero."""
        ...


class MonotonicClock:
    """The real clock."""

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def utc(self) -> datetime:
        """Return the wall clock."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        import anyio  # here, so that pure users of this module load no event loop

        await anyio.sleep(seconds)
