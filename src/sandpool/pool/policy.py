"""`Policy`: how many items a pool keeps, how long, and what becomes of them after a lease."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from sandpool.errors import InvalidSpec

Recycle = Literal["fresh", "reset", "reuse"]
"""After a lease: destroy and replace, clean, or keep as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of one pool; times are in seconds.  `InvalidSpec` for impossible ones."""

    warm: int = 4
    """Items to keep ready."""
    max: int = 16
    """The most items at one time, ready, lent, and on their way."""
    builders: int = 4
    """Creations at one time."""
    recycle: Recycle = "fresh"
    lifetime: float | None = None
    """The life of an item from its creation; a lease ends with it."""
    min_remaining: float = 0.0
    """The life that an item must have left at its hand-over, unless the caller says otherwise."""
    refill_delay: float = 0.0
    """How long what was taken from the stock is not replaced while nobody waits: making an item
    takes processor time, which its new holder can use better in the first milliseconds."""
    oldest_first: bool = False
    """Hand out what has been ready longest, as items that only last for a time should be; else the
    newest, whose memory is still warm."""
    expiry_spread: float = 0.0
    """The share of an item's useful life, up to 0.5, over which the replacements of items of one
    age are spread."""
    max_age: float | None = None
    """The age at which an item that nobody holds is replaced."""
    claim_timeout: float | None = None
    """How long a caller waits that does not say; None: for ever."""
    maintain_every: float = 30.0
    """The longest time between two looks at everything."""
    check_interval: float | None = None
    """How often an item that nobody holds is checked; None: never."""
    check_at_handover: bool = False
    create_timeout: float = 60.0
    check_timeout: float = 5.0
    reset_timeout: float = 10.0
    destroy_timeout: float = 10.0
    max_waiting: int = 10_000
    """Callers that may wait; one more gets `NoCapacity`."""
    degraded_after: int = 3
    """Failed creations in a row after which callers are told instead of left to wait.

    What was tried side by side, and fails, is one (`backoff`).
    """

    def __post_init__(self) -> None:
        """Check everything, so that no pool ever meets an impossible policy."""
        _need("max", self.max, self.max >= 1)
        _need("warm", self.warm, 0 <= self.warm <= self.max)
        _need("builders", self.builders, self.builders >= 1)
        _need("max_waiting", self.max_waiting, self.max_waiting >= 0)
        _need("degraded_after", self.degraded_after, self.degraded_after >= 1)
        _need("recycle", self.recycle, self.recycle in ("fresh", "reset", "reuse"))
        _need("min_remaining", self.min_remaining, 0 <= self.min_remaining < math.inf)
        _need("refill_delay", self.refill_delay, 0 <= self.refill_delay < math.inf)
        _need("expiry_spread", self.expiry_spread, 0 <= self.expiry_spread <= 0.5)
        for field in fields(self):
            if field.name in _TIMES:
                value = getattr(self, field.name)
                _need(field.name, value, value is None or 0 < value < math.inf)
        if self.lifetime is not None and self.min_remaining >= self.lifetime:
            raise InvalidSpec("min_remaining must be less than lifetime: no item could ever serve")


_TIMES = frozenset(
    (
        "lifetime",
        "max_age",
        "claim_timeout",
        "maintain_every",
        "check_interval",
        "create_timeout",
        "check_timeout",
        "reset_timeout",
        "destroy_timeout",
    )
)


def _need(name: str, value: object, holds: bool) -> None:
    if not holds:
        raise InvalidSpec(f"{name}={value!r} is impossible for a pool")
