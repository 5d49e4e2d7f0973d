"""What happens in a pool, as values.  Items are told apart by their slots' numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Created:
    """An item has been made and is ready."""

    slot: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CreateFailed:
    """An item could not be made."""

    slot: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Leased:
    """An item was handed out; `seconds` is how long the caller waited for it."""

    slot: int
    lease: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A lease has ended: `released`, `discarded`, `expired` or `closed`."""

    slot: int
    lease: str
    reason: str


@dataclass(frozen=True, slots=True)
class Destroyed:
    """An item is gone; `why` says for what reason."""

    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """Creations keep failing; callers without stock get `PoolDegraded` from now on."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class Healed:
    """A creation has succeeded again."""


Event = Created | CreateFailed | Leased | Ended | Destroyed | Degraded | Healed
