"""Namespaces: each has a manager of its own, so that none can name another's things.

What belongs to somebody else is not refused but absent: there is no place in a namespace's manager
where it could be found.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from sandpool.clock import Clock
from sandpool.errors import InvalidSpec, NoCapacity, PoolExists, RateLimited, Unsupported
from sandpool.manager.local import LocalSandboxManager
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import PoolInfo, PoolSpec
from sandpool.proxy.gate import Gate
from sandpool.server.events import Feed
from sandpool.server.holdings import Holdings
from sandpool.server.rate import Bucket, take
from sandpool.server.settings import NamespaceLimits
from sandpool.service import Sandbox

_STOP_BOUND = 90.0
"""Seconds in which every manager has to have stopped."""

DEFAULT = "default"
"""The namespace of an open server, for who names none."""

ManagerFactory = Callable[[str, NamespaceLimits, Feed], LocalSandboxManager]


class Tenant:
    """One namespace: its manager, its leases over HTTP, and what it may use."""

    def __init__(
        self,
        name: str,
        limits: NamespaceLimits,
        manager: LocalSandboxManager,
        feed: Feed,
        clock: Clock,
    ) -> None:
        """Describe it; `Tenants.get` starts its manager."""
        self.name = name
        self.limits = limits
        self.manager = manager
        self.feed = feed
        self.holdings = Holdings(limits.max_leases)
        self._clock = clock
        self._bucket = Bucket(float(limits.burst), clock.now())

    def admit(self) -> None:
        """Count one request; `RateLimited`."""
        rate, burst = self.limits.requests_per_second, float(self.limits.burst)
        self._bucket, wait = take(self._bucket, self._clock.now(), rate=rate, burst=burst)
        if wait:
            raise RateLimited(
                f"namespace {self.name} may make {rate:g} requests a second", retry_after=wait
            )

    def sandbox(self, sandbox_id: str, lease_id: str | None) -> Sandbox:
        """Return the handle that a call by this id, through this lease, goes to.

        Raises `SandboxNotFound`, `SandboxLeased`, `SandboxNotActive`, and `LeaseNotFound`.
        """
        if lease_id is not None:
            return self.holdings.use(lease_id, sandbox_id)
        return self.manager.usable_sandbox(sandbox_id)

    def gate(self, sandbox_id: str, lease_id: str | None) -> Gate:
        """Return the way into a sandbox's ports, for who holds it by this id or lease.

        Raises what `LocalSandboxManager.find_gate` does, and `LeaseNotFound`.
        """
        if lease_id is None:
            return self.manager.find_gate(sandbox_id)
        handle = self.holdings.use(lease_id, sandbox_id)
        if not isinstance(handle, LocalSandbox):
            raise Unsupported(f"a {handle.sandbox_type.value} sandbox only runs tools")
        return handle.gate()

    async def create_pool(self, spec: PoolSpec) -> PoolInfo:
        """Make a pool, within what the namespace may have; `NoCapacity`."""
        pools = await self.manager.list_pools()
        if any(pool.name == spec.name for pool in pools):
            raise PoolExists(f"there is a pool {spec.name!r} already")
        if len(pools) >= self.limits.max_pools:
            raise NoCapacity(f"this namespace has {len(pools)} pools, all that it may have")
        return await self.manager.create_pool(spec)

    def remaining(self, sandbox_id: str) -> float | None:
        """Return the seconds until a claimed sandbox ends by itself; None: never."""
        tenancy = self.manager.find_claim(sandbox_id)
        return None if tenancy is None else self.seconds_until(tenancy.expires_at)

    def seconds_until(self, moment: float | None) -> float | None:
        """Return the seconds until a moment of the monotonic clock; None for one that is never."""
        return None if moment is None else max(0.0, moment - self._clock.now())


class Tenants:
    """The namespaces of one server, made when they are first used."""

    def __init__(
        self,
        make_manager: ManagerFactory,
        limits_of: Callable[[str], NamespaceLimits],
        *,
        most: int,
        clock: Clock,
    ) -> None:
        """Know how to make one; there are never more than `most`."""
        self._make_manager = make_manager
        self._limits_of = limits_of
        self._most = most
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        self._lock = anyio.Lock()
        self._is_closed = False

    def all(self) -> list[Tenant]:
        """Return those that are there."""
        return list(self._tenants.values())

    async def get(self, name: str) -> Tenant:
        """Return a namespace, with its manager running; `NoCapacity` if it is one too many."""
        tenant = self._tenants.get(name)
        if tenant is not None:
            return tenant
        async with self._lock:
            if (tenant := self._tenants.get(name)) is not None:
                return tenant
            if self._is_closed:
                raise InvalidSpec("the server is stopping")
            if len(self._tenants) >= self._most:
                raise NoCapacity(f"this server has {self._most} namespaces, all that it may have")
            limits = self._limits_of(name)
            feed = Feed(self._clock)
            manager = self._make_manager(name, limits, feed)
            tenant = Tenant(name, limits, manager, feed, self._clock)
            # Cancel: a manager that was not started holds nothing.
            await tenant.manager.start()
            self._tenants[name] = tenant
            return tenant

    async def aclose(self) -> None:
        """Stop every manager: shielded, and bounded."""
        self._is_closed = True
        with anyio.move_on_after(_STOP_BOUND, shield=True):
            async with anyio.create_task_group() as group:
                for tenant in self.all():
                    group.start_soon(tenant.manager.stop)
        self._tenants.clear()
