"""`Stats`: the counts of a pool at one instant; `Tally`: those that only grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PoolState = Literal["new", "open", "degraded", "draining", "closed"]
"""Not run yet; working; unable to make items; giving out no more leases; at its end."""


@dataclass(frozen=True, slots=True)
class Stats:
    """created == destroyed + alive, at every instant and after every fault."""

    state: PoolState
    warm: int
    max: int
    ready: int
    """Items that nobody holds, those being looked at included."""
    creating: int
    leased: int
    resetting: int
    destroying: int
    waiting: int
    """Callers in the queue."""
    created: int
    """Items that the factory has returned, ever."""
    destroyed: int
    """Items that the factory has ended, ever, or failed to end in time."""
    create_failures: int
    hits: int
    """Leases that found an item ready."""
    misses: int
    """Leases that had to wait for one."""
    last_error: str | None

    @property
    def alive(self) -> int:
        """Items that exist."""
        return self.ready + self.leased + self.resetting + self.destroying


@dataclass(slots=True)
class Tally:
    """What has happened in a pool since it was made; the words are those of `Stats`."""

    created: int = 0
    destroyed: int = 0
    create_failures: int = 0
    hits: int = 0
    misses: int = 0
    last_error: str | None = None
