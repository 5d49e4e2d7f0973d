"""The leases that clients hold over HTTP, each for as long as it is kept alive.

There is no timer here: every call through a lease puts off the end of the lease itself, and its
pool ends it when the time has come, as it ends any other.

    H1  A lease is listed from before its client learns of it until it ends, for whatever reason.
"""

from __future__ import annotations

from sandpool.errors import LeaseNotFound, NoCapacity
from sandpool.manager.tenancy import Tenancy
from sandpool.service import Sandbox


class Holding:
    """One lease and how long it lasts without a call."""

    __slots__ = ("keep_alive", "pool", "tenancy")

    def __init__(self, tenancy: Tenancy, *, pool: str, keep_alive: float) -> None:
        """Begin its first span of `keep_alive` seconds."""
        self.tenancy = tenancy
        self.pool = pool
        self.keep_alive = keep_alive
        self.touch()

    def touch(self) -> None:
        """Put off its end; `LeaseOver`."""
        self.tenancy.extend(self.keep_alive)


class Holdings:
    """The leases of one namespace, by id."""

    def __init__(self, limit: int) -> None:
        """Hold up to `limit` of them."""
        self._limit = limit
        self._held: dict[str, Holding] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._held)

    def check_room(self) -> None:
        """Raise `NoCapacity` if another lease would be one too many."""
        if len(self._held) >= self._limit:
            raise NoCapacity(f"this namespace holds {self._limit} leases, all that it may")

    def add(self, tenancy: Tenancy, *, pool: str, keep_alive: float) -> Holding:
        """Take in a lease that has just begun."""
        holding = Holding(tenancy, pool=pool, keep_alive=keep_alive)
        self._held[tenancy.lease_id] = holding
        tenancy.on_end(self._forget)  # Invariant H1
        return holding

    def find(self, lease_id: str) -> Holding:
        """Return a lease that has not ended; `LeaseNotFound`."""
        holding = self._held.get(lease_id)
        if holding is None:
            raise LeaseNotFound(f"there is no lease {lease_id}, or it has ended")
        return holding

    def use(self, lease_id: str, sandbox_id: str) -> Sandbox:
        """Return the sandbox of a lease for one call, which keeps the lease alive.

        Raises `LeaseNotFound`, also for a lease of another sandbox than `sandbox_id`.
        """
        holding = self.find(lease_id)
        if holding.tenancy.id != sandbox_id:
            raise LeaseNotFound(f"lease {lease_id} is not one of sandbox {sandbox_id}")
        holding.touch()
        return holding.tenancy.handle

    def end(self, lease_id: str, *, spoilt: bool = False) -> None:
        """Give a sandbox back; `spoilt`, never to be used again.  `LeaseNotFound`."""
        tenancy = self.find(lease_id).tenancy
        if spoilt:
            tenancy.spoil()
        else:
            tenancy.end()

    def _forget(self, tenancy: Tenancy) -> None:
        self._held.pop(tenancy.lease_id, None)
