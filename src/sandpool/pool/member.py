"""`Member`: one item of a pool, and what the pool remembers of it.  Pure."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from sandpool.pool.factory import Factory
from sandpool.pool.policy import Policy
from sandpool.pool.slots import SlotId

T = TypeVar("T")


class Member(Generic[T]):
    """An item that exists.  Times are monotonic seconds on the pool's clock."""

    __slots__ = (
        "checked_at",
        "created_at",
        "ends_at",
        "factory",
        "generation",
        "haste",
        "is_doomed",
        "item",
        "order",
        "slot",
        "took",
    )

    def __init__(
        self,
        slot: SlotId,
        item: T,
        factory: Factory[T],
        *,
        generation: int,
        created_at: float,
        ends_at: float | None,
        took: float = 0.0,
        haste: float = 0.0,
    ) -> None:
        """Note it."""
        self.slot = slot
        self.item = item
        self.factory = factory
        """Who made it, and so who cleans and ends it."""
        self.generation = generation
        self.created_at = created_at
        self.ends_at = ends_at
        """When its life is over; None: never."""
        self.checked_at = created_at
        self.took = took
        """How long it took to make."""
        self.haste = haste
        """From 0 to 1, by chance: how much earlier than others of its age it is replaced."""
        self.order: int | None = None
        """Its place among the idle ones: the later it became ready, the larger."""
        self.is_doomed = False
        """Whether it is known to be dead, and so is not to be used again."""

    def fits(self, need: float, now: float) -> bool:
        """Whether it has more than nothing, and at least `need` seconds, of its life left."""
        return self.ends_at is None or (self.ends_at > now and self.ends_at - now >= need)

    def over_at(self, policy: Policy) -> float:
        """Return the first moment at which it is of no use to anybody; infinity: there is none."""
        ends: list[float] = []
        if self.ends_at is not None:
            end = self.ends_at - policy.min_remaining
            # Somebody may still have it if exactly enough is left; sums of floats are not exact.
            while self.fits(policy.min_remaining, end):
                end = math.nextafter(end, math.inf)
            ends.append(end)
        if policy.max_age is not None:
            ends.append(self.created_at + policy.max_age)
        return min(ends, default=math.inf)

    def replace_at(self, policy: Policy) -> float:
        """Return when to begin to make another one, so that it is there when this one is of no use.

        That takes about as long as this one took, and members of one age do not all begin at once.
        """
        end = self.over_at(policy)
        if end == math.inf:
            return end
        life = max(0.0, end - self.created_at)
        ahead = 2 * self.took + self.haste * policy.expiry_spread * life
        return end - min(ahead, life / 2)
