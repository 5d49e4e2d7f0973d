"""`SandboxPool`: one named pool of a manager, whose sandboxes it lends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Literal, NamedTuple

import anyio

from sandpool.clock import Clock
from sandpool.errors import (
    AcquireTimeout,
    InvalidSpec,
    LeaseOver,
    SandboxDied,
    SandboxNotActive,
    SandpoolError,
    Unsupported,
)
from sandpool.ids import new_pool_id
from sandpool.manager.durations import Durations
from sandpool.manager.event import EventKind, PoolEvent, pool_event
from sandpool.manager.launch import longest_launch, pool_health
from sandpool.manager.member import Members
from sandpool.manager.recipe import redacted_spec
from sandpool.manager.registry import Registry
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.tenancy import Tenancy
from sandpool.models import (
    LimitChange,
    PoolInfo,
    PoolSpec,
    SandboxReference,
    check_env,
    check_working_dir,
)
from sandpool.pool import Lease, Policy, Pool
from sandpool.pool.bound import within
from sandpool.pool.events import Created, Event, Leased
from sandpool.service import Sandbox as ServiceSandbox

_NO_ENV: Mapping[str, str | None] = MappingProxyType({})

_States = Literal["open", "degraded", "draining", "closed"]
_STATES: Mapping[str, _States] = {
    "new": "open",
    "open": "open",
    "degraded": "degraded",
    "draining": "draining",
    "closed": "closed",
}


class Membership(NamedTuple):
    """The ids of a pool's sandboxes that are ready or claimed."""

    ready: list[str]
    """In the order of their hand-out."""
    claimed: list[str]
    """In the order of their claims."""


class SandboxPool:
    """A pool under a name, with its definition."""

    def __init__(
        self,
        spec: PoolSpec,
        members: Members,
        *,
        registry: Registry,
        clock: Clock,
        first_epoch: int = 1,
        pool_id: str | None = None,
        secrets: Mapping[str, str] | None = None,
        on_lease: Callable[[Tenancy], None] | None = None,
        on_event: Callable[[PoolEvent], None] | None = None,
    ) -> None:
        """Describe it; `pool.run` opens it.

        `secrets` is what its definition asks for by name: every tenant's processes have them.
        """
        self.spec = spec
        self.pool_id = pool_id or new_pool_id()
        self.members = members
        self.pool: Pool[Sandbox] = Pool(
            members,
            policy(spec),
            name=spec.name,
            clock=clock,
            first_epoch=first_epoch,
            on_event=self._hear,
        )
        self.claims: dict[str, Tenancy] = {}
        """The claimed ones by the id of their sandbox."""
        self._waits = Durations()
        self._creations = Durations()
        self._secrets = dict(secrets or {})
        self._registry = registry
        self._clock = clock
        self._on_lease: Callable[[Tenancy], None] = on_lease or (lambda _: None)
        self._on_event = on_event
        members.on_death = self._lose

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def image(self) -> str:
        """The name of its image; that of one in the store with its tag."""
        box = self.members.made_of.box
        name, at, _ = box.image.partition("@") if box is not None else ("", "", "")
        return name if at else self.spec.image

    async def borrow(
        self,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        check: bool | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        lifetime: float | None = None,
        limits: LimitChange | None = None,
    ) -> Tenancy:
        """Take a lease and bind its sandbox.

        A sandbox that turns out to be dead at its hand-over is replaced by another within the same
        `timeout`.  Raises what `Pool.acquire` raises, and `InvalidSpec`.
        """
        _check_time("timeout", timeout)
        _check_time("min_remaining", min_remaining)
        if lifetime is not None and not 0 < lifetime < float("inf"):
            raise InvalidSpec(f"lifetime must be a positive number of seconds, not {lifetime!r}")
        if env:
            _check_env(env)
        if cwd is not None:
            _check_cwd(cwd)
        change = _change(limits, self.spec)
        begun = self._clock.now()
        left = timeout
        while True:
            lease = await self.pool.acquire(timeout=left, min_remaining=min_remaining, check=check)
            # Cancel: from here on the lease is ours, and every way out of here ends it.
            try:
                tenancy = Tenancy(self, lease)
                # Before its environment: a sandbox that cannot be had like this gets no secret.
                await tenancy.change_limits(change)
                await tenancy.bind({**self._secrets, **(env or _NO_ENV)}, cwd)
                self._check_remaining(lease, min_remaining)
                tenancy.limit(lifetime, self._clock.now())
            except (SandboxDied, SandboxNotActive) as died:
                self._reject(lease)
                if timeout is not None:
                    left = timeout - (self._clock.now() - begun)
                    if left <= 0:
                        raise AcquireTimeout(
                            f"no sandbox of pool {self.name} was alive within {timeout}s",
                            step="check",
                        ) from died
            except BaseException:
                self._reject(lease)
                raise
            else:
                self._on_lease(tenancy)
                self.tell("sandbox.leased", tenancy.id, lease_id=tenancy.lease_id)
                return tenancy

    def _check_remaining(self, lease: Lease[Sandbox], min_remaining: float | None) -> None:
        """Refuse a sandbox whose binding took what it had to spare, as if it had just ended."""
        need = self.spec.min_remaining if min_remaining is None else min_remaining
        ends_at = lease.expires_at
        if ends_at is not None and ends_at - self._clock.now() < need:
            raise SandboxDied(
                f"sandbox {lease.item.id} has less than {need:g}s of its life left",
                reason="expired",
            )

    async def claim(
        self,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        check: bool | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        lifetime: float | None = None,
        limits: LimitChange | None = None,
    ) -> Tenancy:
        """Borrow for good: from now on, calls by the sandbox's id are the tenant's."""
        if lifetime is None:
            lifetime = self.spec.timeout_secs or None
        tenancy = await self.borrow(
            timeout=timeout,
            min_remaining=min_remaining,
            check=check,
            env=env,
            cwd=cwd,
            lifetime=lifetime,
            limits=limits,
        )
        # One claimed sandbox is never lent again, whatever the pool does after a borrow.
        tenancy.is_spoilt = True
        tenure = self._registry.tenure(tenancy.id)
        if tenure is not None:
            tenure.claimed = tenancy.sandbox
            self.claims[tenancy.id] = tenancy
        self.tell("sandbox.claimed", tenancy.id, lease_id=tenancy.lease_id)
        return tenancy

    def forget(self, tenancy: Tenancy) -> None:
        """Be told by a tenancy that it has ended."""
        if self.claims.get(tenancy.id) is tenancy:
            del self.claims[tenancy.id]
            tenure = self._registry.tenure(tenancy.id)
            if tenure is not None:
                tenure.claimed = None
                tenure.over = tenancy.sandbox.farewell()

    def ids(self) -> list[str]:
        """Return the ids of its sandboxes, idle ones first, in the order of their hand-out."""
        idle = [sandbox.id for sandbox in self.pool.idle()]
        seen = frozenset(idle)
        held = [lease.item.id for lease in self.pool.leases()]
        return [*idle, *(key for key in held if key not in seen)]

    def membership(self) -> Membership:
        """Return the ids of its sandboxes, without those that are lent for a time."""
        return Membership([sandbox.id for sandbox in self.pool.idle()], list(self.claims))

    async def look(self, *, check_health: bool) -> list[SandboxReference]:
        """Describe the ready ones in the order of their hand-out, without taking any.

        With `check_health` each is looked at, all at the same time, as the definition says; what is
        found is told and not acted upon.
        """
        found = self.pool.idle()
        faults: dict[str, str] = {}

        async def check(sandbox: Sandbox) -> None:
            bound = self.spec.health_check.timeout
            try:
                await within(self._clock, bound, lambda: self.members.check(sandbox))
            except (SandpoolError, TimeoutError) as error:
                faults[sandbox.id] = str(error)

        if check_health:
            async with anyio.create_task_group() as group:
                for sandbox in found:
                    group.start_soon(check, sandbox)
        return [self._reference(sandbox, check_health, faults.get(sandbox.id)) for sandbox in found]

    def _reference(self, sandbox: Sandbox, checked: bool, fault: str | None) -> SandboxReference:
        healthy = fault is None if checked else None
        ends_at = self.pool.ends_at(sandbox)
        if ends_at is None:
            return SandboxReference(id=sandbox.id, healthy=healthy, fault=fault)
        remaining = max(0.0, ends_at - self._clock.now())
        return SandboxReference(
            id=sandbox.id,
            expires_at=round(self._clock.utc().timestamp() + remaining, 3),
            remaining=remaining,
            healthy=healthy,
            fault=fault,
        )

    async def wait_filled(self) -> None:
        """Wait until it has `warm` members, lent ones included; `PoolDegraded`, `PoolClosed`."""
        stats = self.pool.stats()
        await self.pool.wait_warm(max(0, self.spec.warm - stats.leased - stats.resetting))

    def update(
        self,
        spec: PoolSpec,
        members: Members | None,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Take a new definition; with `members` given, idle sandboxes are replaced by theirs."""
        self.spec = spec
        self._secrets = dict(secrets or {})
        self.pool.update(policy(spec))
        if members is None:
            self.members.launcher.health = pool_health(spec)
            return
        members.on_death = self._lose
        self.members = members
        self.pool.replace_idle(members)

    def info(self) -> PoolInfo:
        """Describe it; its environment by name only."""
        stats = self.pool.stats()
        return PoolInfo(
            name=self.name,
            pool_id=self.pool_id,
            spec=redacted_spec(self.spec),
            backend=self.members.made_of.kind.value,
            state=_STATES[stats.state],
            ready=stats.ready,
            creating=stats.creating,
            starting=min(self.members.starting, stats.creating),
            leased=stats.leased,
            resetting=stats.resetting,
            waiting=stats.waiting,
            created=stats.created,
            destroyed=stats.destroyed,
            create_failures=stats.create_failures,
            hits=stats.hits,
            misses=stats.misses,
            waits=self._waits.quantiles(),
            creations=self._creations.quantiles(),
            last_error=stats.last_error,
        )

    def tell(
        self,
        kind: EventKind,
        sandbox_id: str | None = None,
        *,
        lease_id: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Say to who listens what has happened."""
        if self._on_event is not None:
            self._on_event(PoolEvent(kind, self.name, sandbox_id, lease_id, detail))

    def _hear(self, event: Event) -> None:
        match event:
            case Leased(seconds=seconds):
                self._waits.add(seconds)
            case Created(seconds=seconds):
                self._creations.add(seconds)
            case _ if self._on_event is not None:
                found = pool_event(self.name, event)
                if found is not None:
                    self._on_event(found)
            case _:
                pass

    def _lose(self, sandbox: Sandbox) -> None:
        self.tell("sandbox.died", sandbox.id)
        self.pool.report_dead(sandbox)

    def _reject(self, lease: Lease[Sandbox]) -> None:
        self.pool.report_dead(lease.item)
        lease.release_nowait()


_REFILL_DELAY = 0.010
"""Seconds.  Making a sandbox takes a processor for longer than a lease of one small run lasts, also
when both its calls come over HTTP."""

_EXPIRY_SPREAD = 0.1
"""The share of their useful life over which sandboxes of one age are replaced."""

_CREATE_TIMEOUT = 60.0
_RESET_TIMEOUT = 10.0
"""Seconds for a sandbox to come up, and to be renewed, without what its pool launches in it."""


def policy(spec: PoolSpec) -> Policy:
    """Return how the generic pool is to keep what `spec` defines."""
    serves = bool(spec.entrypoint)
    return Policy(
        warm=spec.warm,
        max=spec.max,
        builders=spec.builders,
        recycle=spec.recycle,
        lifetime=spec.lifetime,
        min_remaining=spec.min_remaining,
        refill_delay=_REFILL_DELAY,
        oldest_first=serves,
        expiry_spread=_EXPIRY_SPREAD,
        max_age=spec.max_age,
        claim_timeout=spec.claim_timeout,
        maintain_every=spec.maintain_every,
        # A guest that dies is heard of; what else there is to look at has to be looked at.
        check_interval=None if spec.health_check.kind == "guest" else spec.maintain_every,
        # A sandbox that had tenants before is never handed on without a look at it.
        check_at_handover=spec.check_at_handover or spec.recycle == "reuse",
        check_timeout=spec.health_check.timeout,
        create_timeout=_CREATE_TIMEOUT + longest_launch(spec),
        reset_timeout=_RESET_TIMEOUT + longest_launch(spec),
        degraded_after=spec.create_retries + 1,
    )


def _check_time(name: str, seconds: float | None) -> None:
    # Not `seconds < 0`: that would let a NaN through.
    if seconds is not None and not seconds >= 0:
        raise InvalidSpec(f"{name} must be a number of seconds, not {seconds!r}")


def _change(limits: LimitChange | None, spec: PoolSpec) -> LimitChange | None:
    """Return what is to be changed of the pool's limits; `InvalidSpec` where it is too much."""
    if limits is None:
        return None
    most = (spec.max_limits or LimitChange()).given()
    for name, value in limits.given().items():
        highest = most[name] if name in most else getattr(spec, name)
        if value > highest:
            raise InvalidSpec(
                f"limits: {name} is {value}, and pool {spec.name} lets at most {highest} be asked "
                "for (max_limits)"
            )
    is_other = any(value != getattr(spec, name) for name, value in limits.given().items())
    return limits if is_other else None


def _check_env(env: Mapping[str, str | None]) -> None:
    try:
        check_env({name: value or "" for name, value in env.items()})
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"env: {error}") from None


def _check_cwd(cwd: str) -> None:
    try:
        check_working_dir(cwd)
    except (AttributeError, ValueError) as error:
        raise InvalidSpec(f"cwd: {error}") from None


class Loan(AbstractAsyncContextManager[ServiceSandbox]):
    """A sandbox for the length of an `async with` block."""

    def __init__(self, borrow: Callable[[], Awaitable[Tenancy]]) -> None:
        """Know how to borrow; nothing is taken before the block begins."""
        self._borrow = borrow
        self._tenancy: Tenancy | None = None

    async def __aenter__(self) -> ServiceSandbox:
        """Borrow."""
        if self._tenancy is not None:
            raise LeaseOver("a lease is for one `async with` block; make another one")
        self._tenancy = await self._borrow()
        try:
            return self._tenancy.handle
        except Unsupported:
            self._tenancy.end()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back; after a cancellation, never to be used again."""
        if self._tenancy is None:
            return
        if kind is not None and issubclass(kind, anyio.get_cancelled_exc_class()):
            self._tenancy.spoil()
        else:
            self._tenancy.end()
