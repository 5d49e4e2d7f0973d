"""Host user ids for sandboxes that root makes: one range a sandbox, never shared by two live ones.

Ranges come from a part of the id space that no distribution hands out.  Managers on one host keep
out of each other's way by blocks of ranges; holding an abstract Unix socket is the lock on a block,
so the kernel releases it with its owner, however that ends.
"""

from __future__ import annotations

import socket

from sandpool.errors import NoCapacity

RANGE = 65_536
"""Ids in one range: all 16-bit ids, `nobody` included."""

_FIRST = 0x7000_0000
_BLOCK = 64
_BLOCKS = (0xFFFF_0000 - _FIRST) // (RANGE * _BLOCK)


class IdRanges:
    """Hands out first ids of ranges.

    R1  A range is free or held by one sandbox, and lies in a block whose lock we hold.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._locks: list[socket.socket] = []
        self._free: list[int] = []

    def take(self) -> int:
        """Return the first id of a free range; `NoCapacity` when the host has none left."""
        if not self._free:
            self._lock_block()
        return self._free.pop()

    def give_back(self, first: int) -> None:
        """Free a range; called once no process of its sandbox is left."""
        self._free.append(first)

    def close(self) -> None:
        """Release all blocks."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()
        self._free.clear()

    def _lock_block(self) -> None:
        for block in range(_BLOCKS):
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                lock.bind(f"\0sandpool-ids-{block}")
            except OSError:
                lock.close()
                continue
            self._locks.append(lock)
            first = _FIRST + block * _BLOCK * RANGE
            # Invariant R1: descending, so that `pop` hands out the lowest first.
            self._free += [first + index * RANGE for index in reversed(range(_BLOCK))]
            return
        raise NoCapacity("all ranges of host user ids for sandboxes are taken", retry_after=1.0)
