"""`plan`: how many items to hand out, to make and to end, from a pool's counts alone.

Pure, like `slots`: the whole policy of refill in one function.
"""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """What to do now."""

    serve: int
    """Waiters that get a ready item."""
    create: int
    """Creations to begin, before any bound on how many go on at a time."""
    retire: int
    """Ready items to end: those that nobody needs."""


def plan(
    *,
    ready: int,
    unfit: int,
    coming: int,
    busy: int,
    waiting: int,
    warm: int,
    max_size: int,
    expiring: int = 0,
) -> Plan:
    """Return what brings a pool to `warm` ready items with nobody waiting.

    `ready` counts items that the first waiter could be given, `unfit` those that nobody who waits
    can use, `coming` those being made or cleaned, `busy` those lent or looked at.  What is already
    on its way serves the queue first, so that a burst of waiters does not start one creation each.
    `expiring` of the idle ones will soon be of no use to anybody: others are made before they go,
    where there is room, and they are the first to be retired.
    """
    serve = min(ready, waiting)
    unserved = waiting - serve
    idle = ready - serve + unfit
    alive = ready + unfit + coming + busy
    # A waiter that no ready item fits needs a new one, though the stock is full.
    lasting = max(0, idle - expiring)
    wanted = max(0, unserved - coming, warm + unserved - lasting - coming)
    room = max_size - alive
    surplus = max(0, idle - warm, -room)
    missing = unserved - coming
    if missing > 0:
        # Stock of no use to those who wait must not keep them from theirs.
        surplus = max(surplus, min(unfit, missing - room))
    retire = min(idle, surplus)
    return Plan(serve, min(wanted, max(0, room + retire)), retire)
