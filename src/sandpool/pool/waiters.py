"""`Waiters`: callers that wait for something, first come, first served.

Handing over is an offer: whoever gave up has said so, and the offer goes to the next.

    W1  A waiter is in the queue, or it has been given an item or a failure: exactly one of these.
    W2  An item that was given is taken by exactly one caller, or given back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import anyio

from sandpool.pool.agenda import Agenda

T = TypeVar("T")


class Waiter(Generic[T]):
    """One caller's place in the queue."""

    __slots__ = ("deadline", "event", "failure", "item", "need", "place")

    def __init__(self, need: float, deadline: float | None, place: int) -> None:
        """Stand at `place`; `need` is the life that an item must have left, in seconds."""
        self.need = need
        self.deadline = deadline
        self.place = place
        self.item: list[T] = []
        self.failure: BaseException | None = None
        self.event = anyio.Event()


class Waiters(Generic[T]):
    """The queue."""

    def __init__(self, give_back: Callable[[T], None]) -> None:
        """Begin empty; `give_back` gets what was offered to a caller that was cancelled."""
        self._give_back = give_back
        self._queue: dict[int, Waiter[T]] = {}  # Invariant W1; by place
        self._turns = Agenda()
        self._deadlines = Agenda()
        self._places = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def __iter__(self) -> Iterator[Waiter[T]]:
        """Iterate in the order of service, over those that wait now."""
        return iter([self._queue[place] for place in sorted(self._queue)])

    @property
    def first(self) -> Waiter[T]:
        """The waiter whose turn it is."""
        place = self._turns.first()
        assert place is not None
        return self._queue[place]

    def late(self, now: float) -> Waiter[T] | None:
        """Return a waiter whose deadline has come by `now`; None if there is none."""
        place = self._deadlines.first()
        if place is None or self._deadlines.next_time(math.inf) > now:
            return None
        return self._queue[place]

    def next_deadline(self) -> float:
        """Return the first deadline of those that wait; infinity: none has one."""
        return self._deadlines.next_time(math.inf)

    def place(self) -> int:
        """Return a place at the end, for callers that may have to queue more than once."""
        self._places += 1
        return self._places

    def add(self, waiter: Waiter[T]) -> None:
        """Put a caller into the queue at its place; `take` must follow at once."""
        self._queue[waiter.place] = waiter
        self._turns.put(waiter.place, waiter.place)
        if waiter.deadline is not None:
            self._deadlines.put(waiter.place, waiter.deadline)

    async def take(self, waiter: Waiter[T]) -> T:
        """Wait until there is an item or a failure for a caller in the queue."""
        try:
            await waiter.event.wait()
        except BaseException:
            # Cancel: it can land after an offer chose us; then the item is ours to pass on.
            if waiter.item:
                self._give_back(waiter.item.pop())
            elif waiter.failure is None:
                self._remove(waiter)
            raise
        if waiter.failure is not None:
            raise waiter.failure
        return waiter.item.pop()

    def offer(self, item: T) -> None:
        """Give `item` to the waiter whose turn it is."""
        waiter = self.first
        self._remove(waiter)
        waiter.item.append(item)
        waiter.event.set()

    def fail(self, waiter: Waiter[T], failure: BaseException) -> None:
        """Send one waiter away with an exception of its own."""
        self._remove(waiter)
        waiter.failure = failure
        waiter.event.set()

    def fail_all(self, failure: Callable[[], BaseException]) -> None:
        """Send everybody away."""
        for waiter in self:
            self.fail(waiter, failure())

    def _remove(self, waiter: Waiter[T]) -> None:
        del self._queue[waiter.place]
        self._turns.drop(waiter.place)
        self._deadlines.drop(waiter.place)
