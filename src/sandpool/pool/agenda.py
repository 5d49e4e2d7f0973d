"""`Agenda`: numbers by when their turn is, the earliest first.  Pure.

What a pool does at every event must cost the same however many items, leases and callers it has, or
almost: nothing here takes more than the logarithm of their number, on average.

    A1  Every number is in `_when` once, with the time that it was last given.
    A2  The heap has an entry for each of them.  Entries that are not in `_when` are stale: passed
        over when they come up, and never more than those in force, but for a few.
"""

from __future__ import annotations

import heapq

_FEW = 64


class Agenda:
    """Numbers, each with a time; equal times are in the order of the numbers."""

    def __init__(self) -> None:
        """Begin empty."""
        self._when: dict[int, float] = {}  # Invariant A1
        self._heap: list[tuple[float, int]] = []  # Invariant A2

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._when)

    @property
    def entries(self) -> int:
        """How long the heap is, stale entries included."""
        return len(self._heap)

    def put(self, number: int, when: float) -> None:
        """Give a number its time, in place of the one that it had."""
        if self._when.get(number) == when:
            return
        self._when[number] = when
        heapq.heappush(self._heap, (when, number))
        if len(self._heap) > 2 * len(self._when) + _FEW:
            self._heap = [(due, one) for one, due in self._when.items()]
            heapq.heapify(self._heap)

    def drop(self, number: int) -> None:
        """Take a number out, if it is there."""
        self._when.pop(number, None)

    def first(self) -> int | None:
        """Return the number whose turn is first; None if there is none."""
        heap = self._heap
        while heap:
            when, number = heap[0]
            if self._when.get(number) == when:
                return number
            heapq.heappop(heap)
        return None

    def next_time(self, default: float) -> float:
        """Return the time of the first; `default` if there is none."""
        number = self.first()
        return default if number is None else self._when[number]

    def pop_due(self, now: float) -> int | None:
        """Take out the first whose time has come by `now`, and return it; None if there is none."""
        number = self.first()
        if number is None or self._when[number] > now:
            return None
        heapq.heappop(self._heap)
        del self._when[number]
        return number
