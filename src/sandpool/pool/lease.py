"""`Lease`: the exclusive right to one item until it is given back, discarded, or ends by itself.

A lease ends once, for one reason; everything after that is without effect (invariant L1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Literal, Protocol, TypeVar

import anyio.lowlevel

from sandpool.errors import LeaseOver

T = TypeVar("T")

_log = logging.getLogger(__name__)

EndReason = Literal["released", "discarded", "expired", "closed"]
"""Given back, given up, out of time, or ended with its pool."""


class Lender(Protocol):
    """What a lease needs of its pool."""

    def give_back(self, epoch: int, reason: EndReason) -> None:
        """Take back the item of a lease that is being ended by its holder."""
        ...

    def deadline_changed(self, epoch: int) -> None:
        """Learn that a lease has another `expires_at`."""
        ...

    def now(self) -> float:
        """Return the pool's time."""
        ...


class Lease(Generic[T]):
    """One caller's right to one item; leaving its `async with` block gives the item back."""

    def __init__(
        self,
        lender: Lender,
        lease_id: str,
        item: T,
        *,
        epoch: int,
        acquired_at: float,
        life_ends_at: float | None,
    ) -> None:
        """Begin; called by the pool."""
        self._lender = lender
        self._callbacks: list[Callable[[EndReason], None]] = []
        self._life_ends_at = life_ends_at
        self._reason: EndReason | None = None  # Invariant L1
        self.id = lease_id
        self.item = item
        self.epoch = epoch
        """Grows with every lease of the pool: what is older is stale."""
        self.acquired_at = acquired_at
        """When it began, in monotonic seconds of the pool's clock."""
        self.expires_at = life_ends_at
        """When it ends by itself, on the same clock; None: never."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._reason is not None

    def set_deadline(self, lifetime: float | None) -> None:
        """Let it end `lifetime` seconds from now, or with its item's own life if that is sooner.

        None takes an earlier deadline back.  Raises `LeaseOver`.
        """
        if self._reason is not None:
            raise LeaseOver(f"lease {self.id} is over: {self._reason}")
        wanted = None if lifetime is None else self._lender.now() + lifetime
        ends = [time for time in (wanted, self._life_ends_at) if time is not None]
        self.expires_at = min(ends, default=None)
        self._lender.deadline_changed(self.epoch)

    def on_end(self, callback: Callable[[EndReason], None]) -> None:
        """Call `callback(reason)` once, when it ends; at once if it has.

        What it raises is logged: neither the lease nor its pool can do anything about it.
        """
        if self._reason is not None:
            self._call(callback, self._reason)
        else:
            self._callbacks.append(callback)

    def release_nowait(self) -> None:
        """Give the item back, to be recycled as the policy says."""
        if self._reason is None:
            self._lender.give_back(self.epoch, "released")

    async def release(self) -> None:
        """Give the item back; what becomes of it goes on in the background."""
        self.release_nowait()
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def discard(self) -> None:
        """Give the item up: it is destroyed, whatever the policy says."""
        if self._reason is None:
            self._lender.give_back(self.epoch, "discarded")
        await anyio.lowlevel.cancel_shielded_checkpoint()

    def end(self, reason: EndReason) -> None:
        """Note the end and tell whoever asked; called by the pool."""
        if self._reason is None:
            self._reason = reason
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                self._call(callback, reason)

    def _call(self, callback: Callable[[EndReason], None], reason: EndReason) -> None:
        try:
            callback(reason)
        except Exception:  # noqa: BLE001 (whatever it is, the lease is over)
            _log.exception("lease %s: who was told of its end failed", self.id)

    async def __aenter__(self) -> T:
        """Return the item."""
        return self.item

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the item back, or up where the block was cancelled: nobody knows what it left."""
        if kind is None or issubclass(kind, Exception):
            self.release_nowait()
        elif self._reason is None:
            self._lender.give_back(self.epoch, "discarded")
