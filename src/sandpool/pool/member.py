"""`Member`: one item of a pool, and what the pool remembers of it.  Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

from sandpool.pool.factory import Factory
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
        "is_doomed",
        "item",
        "order",
        "slot",
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
        self.order: int | None = None
        """Its place among the idle ones: the later it became ready, the larger."""
        self.is_doomed = False
        """Whether it is known to be dead, and so is not to be used again."""

    def fits(self, need: float, now: float) -> bool:
        """Whether it has more than nothing, and at least `need` seconds, of its life left."""
        return self.ends_at is None or (self.ends_at > now and self.ends_at - now >= need)

    def is_over(self, now: float, max_age: float | None) -> bool:
        """Whether its life is over, or it is too old to be handed out."""
        return any(when <= now for when in self.due(max_age, None))

    def is_check_due(self, now: float, check_interval: float | None) -> bool:
        """Whether it is time to look at it again."""
        return check_interval is not None and self.checked_at + check_interval <= now

    def due(self, max_age: float | None, check_interval: float | None) -> list[float]:
        """Return when something has to be done about it while nobody holds it."""
        found: list[float] = []
        if self.ends_at is not None:
            found.append(self.ends_at)
        if max_age is not None:
            found.append(self.created_at + max_age)
        if check_interval is not None:
            found.append(self.checked_at + check_interval)
        return found
