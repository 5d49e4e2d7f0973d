"""What happens to a manager's pools and to the sandboxes in them, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandpool.pool.events import CreateFailed, Degraded, Event, Healed

EventKind = Literal[
    "pool.created",
    "pool.updated",
    "pool.deleted",
    "pool.create_failed",
    "pool.degraded",
    "pool.healed",
    "sandbox.leased",
    "sandbox.claimed",
    "sandbox.released",
    "sandbox.expired",
    "sandbox.died",
]
"""A claimed sandbox is first leased and then claimed: a claim is a lease for good.  One that dies
while it is held has died first and is released then."""


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One thing that has happened."""

    kind: EventKind
    pool: str
    sandbox_id: str | None = None
    lease_id: str | None = None
    detail: str | None = None
    """What went wrong, or how a lease ended."""


def pool_event(pool: str, event: Event) -> PoolEvent | None:
    """Return what an event of the generic pool means to a manager's callers; None: nothing."""
    match event:
        case CreateFailed(error=error):
            return PoolEvent("pool.create_failed", pool, detail=str(error))
        case Degraded(cause=cause):
            return PoolEvent("pool.degraded", pool, detail=str(cause))
        case Healed():
            return PoolEvent("pool.healed", pool)
        case _:
            return None
