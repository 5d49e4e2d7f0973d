"""`Waiters`: callers that wait for something, first come, first served.

Handing over is an offer: whoever gave up has said so, and the offer goes to the next.

    W1  A waiter is in the queue, or it has been given an item or a failure: exactly one of these.
    W2  An item that was given is taken by exactly one caller, or given back.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import anyio

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
        self._queue: list[Waiter[T]] = []
        self._places = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def __iter__(self) -> Iterator[Waiter[T]]:
        """Iterate in the order of service."""
        return iter(list(self._queue))

    @property
    def first(self) -> Waiter[T]:
        """The waiter whose turn it is."""
        return self._queue[0]

    def place(self) -> int:
        """Return a place at the end, for callers that may have to queue more than once."""
        self._places += 1
        return self._places

    def add(self, waiter: Waiter[T]) -> None:
        """Put a caller into the queue at its place; `take` must follow at once."""
        insort(self._queue, waiter, key=lambda one: one.place)

    async def take(self, waiter: Waiter[T]) -> T:
        """Wait until there is an item or a failure for a caller in the queue."""
        try:
            await waiter.event.wait()
        except BaseException:
            # Cancel: it can land after an offer chose us; then the item is ours to pass on.
            if waiter.item:
                self._give_back(waiter.item.pop())
            elif waiter.failure is None:
                self._queue.remove(waiter)
            raise
        if waiter.failure is not None:
            raise waiter.failure
        return waiter.item.pop()

    def offer(self, item: T) -> None:
        """Give `item` to the waiter whose turn it is."""
        waiter = self._queue.pop(0)
        waiter.item.append(item)
        waiter.event.set()

    def fail(self, waiter: Waiter[T], failure: BaseException) -> None:
        """Send one waiter away with an exception of its own."""
        self._queue.remove(waiter)
        waiter.failure = failure
        waiter.event.set()

    def fail_all(self, failure: Callable[[], BaseException]) -> None:
        """Send everybody away."""
        for waiter in list(self._queue):
            self.fail(waiter, failure())
