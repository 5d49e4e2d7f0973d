"""`Tenancy`: what one tenant has of a pool's sandbox, from its hand-over to the lease's end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from sandpool.backends.base import Binding
from sandpool.errors import LeaseOver, SandboxDied, SandboxNotActive, SandpoolError, Unsupported
from sandpool.manager.event import EventKind
from sandpool.manager.hold import Hold
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.sandbox import ACTIVE, Sandbox
from sandpool.models import LimitChange, SandboxStatus
from sandpool.pool import Lease
from sandpool.service import Sandbox as ServiceSandbox

if TYPE_CHECKING:
    from sandpool.manager.sandbox_pool import SandboxPool

_LIMIT_BOUND = 5.0
"""Seconds that a warm sandbox has to take other limits; one that needs longer is not healthy."""


class Tenancy:
    """A lease, and the handle that works until it ends."""

    __slots__ = ("_hold", "_item", "_lease", "_pool", "is_spoilt", "sandbox")

    def __init__(self, pool: SandboxPool, lease: Lease[Sandbox]) -> None:
        """Begin; called by `SandboxPool.borrow` for a lease that it has just been given."""
        item = lease.item
        if item.status not in ACTIVE:
            raise SandboxNotActive(f"sandbox {item.id} is {item.status.value}")
        self._pool = pool
        self._lease = lease
        self._item = item
        self._hold: Hold | None = None
        self.is_spoilt = False
        """Whether the sandbox must not be used again, whatever the pool's `recycle` says."""
        self.sandbox: Sandbox = item
        """The tenant's handle."""
        if isinstance(item, LocalSandbox):
            self._hold = Hold(item.need_box(), lambda: lease.expires_at)
            self.sandbox = item.lend(self._hold)
        item.update_status(SandboxStatus.BUSY)
        lease.on_end(self._ended)

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self._item.id

    @property
    def handle(self) -> ServiceSandbox:
        """The tenant's handle, as `SandboxService` gives it out; `Unsupported`."""
        if not isinstance(self.sandbox, LocalSandbox):
            kind = self._item.sandbox_type.value
            raise Unsupported(f"{kind} sandboxes can only be lent by execute_tool_in_pool")
        return self.sandbox

    @property
    def lease_id(self) -> str:
        """The lease's id."""
        return self._lease.id

    @property
    def epoch(self) -> int:
        """The lease's fencing epoch."""
        return self._lease.epoch

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._lease.is_over

    @property
    def expires_at(self) -> float | None:
        """When it ends by itself, on the monotonic clock; None: never."""
        return self._lease.expires_at

    def extend(self, lifetime: float) -> None:
        """Let it end `lifetime` seconds from now, or with the sandbox's own life; `LeaseOver`."""
        self._lease.set_deadline(lifetime)

    async def bind(self, env: Mapping[str, str | None], cwd: str | None) -> None:
        """Give the sandbox what belongs to this tenant; `SandboxDied` if it does not answer."""
        item = self._item
        if not isinstance(item, LocalSandbox):
            if env or cwd is not None:
                kind = item.sandbox_type.value
                raise Unsupported(f"a {kind} sandbox cannot be given an environment at hand-over")
            return
        # What one tenant was given must not reach the next, and it cannot be taken back for sure.
        self.is_spoilt = self.is_spoilt or bool(env) or cwd is not None
        await item.need_box().bind(Binding(epoch=self._lease.epoch, env=env, cwd=cwd))

    async def change_limits(self, change: LimitChange | None) -> None:
        """Hold the sandbox to this tenant's limits, if any; `Unsupported`, `InvalidSpec`."""
        if change is None:
            return
        item = self._item
        if not isinstance(item, LocalSandbox) or not isinstance(self.sandbox, LocalSandbox):
            kind = item.sandbox_type.value
            raise Unsupported(f"the limits of a {kind} sandbox cannot be changed at hand-over")
        # The next tenant's are the pool's, and what a failed change has left is not known.
        self.is_spoilt = True
        with anyio.move_on_after(_LIMIT_BOUND) as scope:
            await item.need_box().set_limits(replace(item.spec.limits, **change.given()))
        if scope.cancelled_caught:
            raise SandboxDied(f"sandbox {item.id} could not be limited in time", reason="backend")
        # It has no tenant after this one: whoever asks by its id and whoever holds it see them.
        item.show_limits(change.given())
        self.sandbox.show_limits(change.given())

    def on_end(self, callback: Callable[[Tenancy], None]) -> None:
        """Call `callback(self)` once, when it ends; at once if it has."""
        self._lease.on_end(lambda _: callback(self))

    def limit(self, lifetime: float | None, now: float) -> None:
        """End it after `lifetime` seconds, unless the sandbox's own life ends before."""
        if lifetime is None:
            return
        expires_at = self._lease.expires_at
        if expires_at is None or now + lifetime < expires_at:
            self._lease.set_deadline(lifetime)

    def end(self) -> None:
        """Give the sandbox back; no effect once it has ended.  Never waits."""
        if self.is_spoilt and not self._lease.is_over:
            self._pool.pool.report_dead(self._item)
        self._lease.release_nowait()

    def spoil(self) -> None:
        """Give the sandbox back as one that must not be used again.  Never waits."""
        self.is_spoilt = True
        self.end()

    def _ended(self, reason: str) -> None:
        """Be told, once, that the lease has ended by whatever."""
        if self._hold is not None:
            self._hold.end(_farewell(self.id, self._pool.name, reason))
        self._pool.forget(self)
        kind: EventKind = "sandbox.expired" if reason == "expired" else "sandbox.released"
        self._pool.tell(kind, self.id, lease_id=self.lease_id, detail=reason)
        goes_back = reason == "released" and self._pool.spec.recycle == "reuse"
        if goes_back and not self.is_spoilt and self._item.status is SandboxStatus.BUSY:
            self._item.update_status(SandboxStatus.IDLE)


def _farewell(sandbox_id: str, pool: str, reason: str) -> SandpoolError:
    """Return what calls through a handle raise after its lease has ended for this reason."""
    if reason == "expired":
        return SandboxDied(f"sandbox {sandbox_id} reached the end of its life", reason="expired")
    if reason == "closed":
        return LeaseOver(f"the lease of sandbox {sandbox_id} ended with pool {pool}")
    return LeaseOver(f"the lease of sandbox {sandbox_id} is over")
