"""`Stock`: the ready items that nobody holds, in the order in which they became ready.  Pure.

It also knows, of all of them, which one is to be seen to next, and for what.

    S1  `_members` holds the members by `order`; each agenda has those of them that it concerns.
    S2  A member is in `_lasting` or in `_expiring`, by when another one should be begun.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from sandpool.pool.agenda import Agenda
from sandpool.pool.member import Member
from sandpool.pool.policy import Policy

T = TypeVar("T")


class Stock(Generic[T]):
    """Members by age in the stock; one that was only looked at comes back to its old place."""

    def __init__(self, policy: Policy) -> None:
        """Begin empty."""
        self._order = 0
        self._members: dict[int, Member[T]] = {}  # Invariant S1
        self._begin(policy)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    def follow(self, policy: Policy) -> None:
        """Go by another policy, and by what the members' lives are now."""
        self._begin(policy)
        for member in self._members.values():
            self._note(member)

    def add(self, member: Member[T]) -> None:
        """Take in a member that is new, or that a tenant had, as the last to have become ready."""
        self._order += 1
        member.order = self._order
        self.put_back(member)

    def put_back(self, member: Member[T]) -> None:
        """Take in a member at the place that it had before."""
        self._members[_order(member)] = member
        self._note(member)

    def remove(self, member: Member[T]) -> None:
        """Take out a member that is there."""
        order = _order(member)
        del self._members[order]
        for agenda in self._agendas:
            agenda.drop(order)

    def in_turn(self) -> list[Member[T]]:
        """Return them in the order of hand-out."""
        return [self._members[order] for order in sorted(self._members, key=self._turn)]

    def has_fit(self, need: float, now: float) -> bool:
        """Whether there is one for who needs it to live `need` seconds."""
        if not self._members:
            return False
        longest = self._longest.first()
        return longest is None or self._members[longest].fits(need, now)

    def first_fit(self, need: float, now: float) -> Member[T] | None:
        """Return the one to hand out to who needs it to live `need` seconds; None if none does."""
        if not self.has_fit(need, now):
            return None
        passed_over: list[int] = []
        while True:
            order = self._turns.first()
            assert order is not None
            if self._members[order].fits(need, now):
                break
            self._turns.drop(order)
            passed_over.append(order)
        for one in passed_over:
            self._turns.put(one, self._turn(one))
        return self._members[order]

    def count_expiring(self, now: float) -> int:
        """Return how many of them should have another one on its way by now."""
        while (order := self._lasting.pop_due(now)) is not None:  # Invariant S2
            self._expiring.put(order, self._members[order].replace_at(self._policy))
        return len(self._expiring)

    def pop_least_lasting(self) -> Member[T]:
        """Take out the one to end first; of those that last equally, the longest ready."""
        order = self._expiring.first()
        if order is None:
            order = self._lasting.first()
        assert order is not None
        return self._pop(order)

    def pop_over(self, now: float) -> Member[T] | None:
        """Take out one that is of no use to anybody any more; None if there is none."""
        order = self._over.pop_due(now)
        return None if order is None else self._pop(order)

    def pop_check_due(self, now: float) -> Member[T] | None:
        """Take out the one that has been due longest to be looked at; None if there is none."""
        order = self._checks.pop_due(now)
        return None if order is None else self._pop(order)

    def next_due(self, now: float, *, with_checks: bool) -> float:
        """Return when something is to be done about one of them; infinity: never."""
        self.count_expiring(now)
        checks = self._checks.next_time(math.inf) if with_checks else math.inf
        return min(self._over.next_time(math.inf), self._lasting.next_time(math.inf), checks)

    def _begin(self, policy: Policy) -> None:
        self._policy = policy
        self._direction = 1 if policy.oldest_first or policy.recycle == "reuse" else -1
        self._turns, self._longest, self._over = Agenda(), Agenda(), Agenda()
        self._lasting, self._expiring, self._checks = Agenda(), Agenda(), Agenda()
        self._agendas = (
            self._turns,
            self._longest,
            self._over,
            self._lasting,
            self._expiring,
            self._checks,
        )

    def _turn(self, order: int) -> int:
        """Return what sorts them for hand-out: in turns where used again, else newest first."""
        return order * self._direction

    def _note(self, member: Member[T]) -> None:
        policy, order = self._policy, _order(member)
        self._turns.put(order, self._turn(order))
        self._lasting.put(order, member.replace_at(policy))
        if member.ends_at is not None:
            self._longest.put(order, -member.ends_at)
        if (over := member.over_at(policy)) < math.inf:
            self._over.put(order, over)
        if policy.check_interval is not None:
            self._checks.put(order, member.checked_at + policy.check_interval)

    def _pop(self, order: int) -> Member[T]:
        member = self._members[order]
        self.remove(member)
        return member


def _order(member: Member[T]) -> int:
    assert member.order is not None
    return member.order
