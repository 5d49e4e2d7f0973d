"""`Stock`: the ready items that nobody holds, in the order in which they became ready.  Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from sandpool.pool.member import Member

T = TypeVar("T")


class Stock(Generic[T]):
    """Members by age in the stock; one that was only looked at comes back to its old place."""

    def __init__(self) -> None:
        """Begin empty."""
        self._members: list[Member[T]] = []
        self._order = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    def __iter__(self) -> Iterator[Member[T]]:
        """Iterate over them as they are now, the longest ready first."""
        return iter(list(self._members))

    def add(self, member: Member[T]) -> None:
        """Take in a member that is new, or that a tenant had, as the last to have become ready."""
        self._order += 1
        member.order = self._order
        self._members.append(member)

    def put_back(self, member: Member[T]) -> None:
        """Take in a member at the place that it had before."""
        insort(self._members, member, key=_order)

    def remove(self, member: Member[T]) -> None:
        """Take out a member that is there."""
        self._members.remove(member)

    def in_turn(self, oldest_first: bool) -> Iterable[Member[T]]:
        """Iterate over them in the order of hand-out."""
        return self._members if oldest_first else reversed(self._members)

    def first_fit(self, need: float, now: float, oldest_first: bool) -> Member[T] | None:
        """Return the one to hand out to who needs it to live `need` seconds; None if none does."""
        for member in self.in_turn(oldest_first):
            if member.fits(need, now):
                return member
        return None

    def count_fits(self, need: float, now: float) -> int:
        """Return how many have `need` seconds of their life left."""
        return sum(member.fits(need, now) for member in self._members)


def _order(member: Member[T]) -> int:
    assert member.order is not None
    return member.order
