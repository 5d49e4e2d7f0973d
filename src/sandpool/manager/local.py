"""`LocalSandboxManager`: sandboxes by id and named pools, in this process.

It decides nothing by itself.  Who holds what is `registry`'s, how pools are filled is
`sandpool.pool`'s, what a lease means is `sandbox_pool`'s, and which sandboxes are too old is
`sweeper`'s; here they are put together behind `SandboxService`.

    not started ──start──► running ──stop──► not started

One manager may be started, used and stopped on three event loops, the first two closed by then (see
`runtime`).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio

from sandpool import config as settings
from sandpool.backends.base import Backend
from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import (
    InvalidSpec,
    ManagerNotStarted,
    NoCapacity,
    PoolExists,
    PoolNotInitialized,
    SandboxNotFound,
    SandpoolError,
    Unsupported,
)
from sandpool.manager import archive
from sandpool.manager.backends import Backends
from sandpool.manager.event import PoolEvent
from sandpool.manager.launch import chosen_secrets, pool_health, pool_launch
from sandpool.manager.launcher import Launcher
from sandpool.manager.lending import Lending
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.manager import SandboxManager
from sandpool.manager.member import Members, end
from sandpool.manager.pools import Pools
from sandpool.manager.recipe import parse_config, parse_type, unredacted_spec
from sandpool.manager.registry import Registry
from sandpool.manager.runtime import Runtime
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.sandbox_pool import Loan, Membership, SandboxPool
from sandpool.manager.stored import image_store
from sandpool.manager.sweeper import Ages, Candidate, Sweeper
from sandpool.manager.tenancy import Tenancy
from sandpool.manager.workshop import Workshop
from sandpool.models import (
    NAME_PATTERN,
    ImageInfo,
    LimitChange,
    PoolInfo,
    PoolSpec,
    Recycle,
    SandboxConfig,
    SandboxInfo,
    SandboxManagerConfig,
    SandboxReference,
    SandboxStatus,
    SandboxType,
    ToolResult,
)
from sandpool.proxy.gate import Gate
from sandpool.service import Sandbox as ServiceSandbox

_log = logging.getLogger(__name__)

_CLEANUP_INTERVAL = 300
"""Seconds between background sweeps, by default."""

_STOP_BOUND = 60.0
"""Seconds that `stop` may take; what is left then dies with its connection or this process."""

_DELETE_BOUND = 10.0
"""Seconds that the clean-up of a sandbox that failed to start may take."""


class LocalSandboxManager(SandboxManager):
    """Keeps warm pools of sandboxes, and sandboxes by id, in this process.

    Implements `SandboxService`, whose docstrings say what each method does.
    """

    def __init__(
        self,
        config: SandboxManagerConfig | None = None,
        *,
        backends: Mapping[str, Callable[[], Backend]] | None = None,
        images: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        cleanup_interval: int | None = None,
        recycle: Recycle | None = None,
        secrets: Mapping[str, str] | None = None,
        first_epoch: int = 1,
        on_lease: Callable[[Tenancy], None] | None = None,
        on_event: Callable[[PoolEvent], None] | None = None,
    ) -> None:
        """Describe it; nothing runs before `start`.

        Args:
            config: Its settings.
            backends: What makes sandboxes, by the name of their type; by default `native` and
                `docker`.
            images: What image names stand for; by default what `SANDPOOL_IMAGES` says.
            clock: What time is.
            cleanup_interval: Seconds between background sweeps, where `config` does not say.
            recycle: What happens to a sandbox after `execute_tool_in_pool`: `fresh` (a new one
                takes its place), `reset` (it is renewed under its id), or `reuse` (as it is: the
                next caller meets what this one left).  By default `reset` for containers, `fresh`
                for all others.
            secrets: What pools may ask for by name (`PoolSpec.secret_names`): values that are only
                ever in the environment of processes in the sandboxes of those pools.
            first_epoch: What the epochs of its pools' leases begin with: more than those of any
                manager before it, where leases outlive their manager in somebody's memory.
            on_lease: Called with every tenancy as it begins; must not wait.
            on_event: Called with everything that happens to its pools; must neither wait nor raise.
        """
        super().__init__(config)
        self._clock = clock if clock is not None else MonotonicClock()
        self._cleanup_interval = (
            self.config.cleanup_interval or cleanup_interval or _CLEANUP_INTERVAL
        )
        self._backends = Backends(backends)
        self._runtime = Runtime()
        self._registry = Registry(self.config.max_sandboxes)
        self._pools = Pools(self._runtime)
        self._workshop = Workshop(
            self._backends,
            images if images is not None else settings.images(),
            self._clock,
            self._runtime,
            self.config.containers,
            egress=self.config.egress,
        )
        self._lending = Lending(
            self._pools,
            self._workshop,
            self._new_pool,
            recycle=recycle,
            max_age=self.config.max_running_age,
        )
        self._sweeper = Sweeper(
            self._candidates,
            self.delete_sandbox,
            ages=Ages(running=self.config.max_running_age, stopped=self.config.max_stopped_age),
            interval=self._cleanup_interval,
            clock=self._clock,
        )
        self._secrets = dict(secrets or {})
        self._first_epoch = first_epoch
        self._on_lease = on_lease
        self._on_event = on_event
        self._running = False
        self._pool_condition = anyio.Condition()
        self._pool_lock = anyio.Lock()

    # Its life.

    async def start(self) -> None:
        """Begin; no effect on a running one."""
        if self._running:
            return
        self._running = True
        try:
            await self._runtime.add("sweeper", self._sweeper.run)
        except BaseException:
            self._running = False
            raise

    async def stop(self) -> None:
        """End every lease, destroy everything, and end; no effect on a stopped one.

        Shielded from cancellation and bounded: what cannot be destroyed is logged.
        """
        if not self._running:
            return
        self._running = False
        with anyio.move_on_after(_STOP_BOUND, shield=True) as scope:
            await self._pools.close_all()
            await self._delete_all(self._registry.own())
            await self._backends.aclose()
            await self._runtime.aclose()
        if scope.cancelled_caught:
            _log.error("stopping took longer than %s s and was given up", _STOP_BOUND)
        self._registry.sandboxes.clear()

    async def _need_running(self) -> None:
        if not self._running:
            raise ManagerNotStarted("Sandbox manager not started")
        await self._runtime.ensure()

    # Sandboxes, by id.

    async def create_sandbox(
        self,
        sandbox_type: SandboxType,
        config: SandboxConfig | dict[str, Any] | None = None,
        sandbox_id: str | None = None,
    ) -> str:
        """Make and start a sandbox and return its id."""
        await self._need_running()
        kind = parse_type(sandbox_type)
        sandbox = self._workshop.make(kind, parse_config(kind, config), _check_id(sandbox_id))
        self._registry.add(sandbox)
        try:
            await sandbox.initialize_tools()
            await sandbox.start()
            self._registry.check_present(sandbox)
        except BaseException:
            # Cancel: neither the sandbox nor its id is left behind.
            with anyio.move_on_after(_DELETE_BOUND, shield=True):
                await self._delete_all([sandbox])
            raise
        return sandbox.id

    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None:
        """Return a sandbox; None if there is none with this id.

        Calls on one that is lent to somebody else raise `SandboxLeased`.
        """
        try:
            return self._registry.find(sandbox_id)
        except SandboxNotFound:
            return None

    async def get_sandbox_info(self, sandbox_id: str) -> SandboxInfo | None:
        """Describe a sandbox; None if there is none with this id."""
        sandbox = self._registry.sandboxes.get(sandbox_id)
        return sandbox.get_info() if sandbox is not None else None

    async def list_sandboxes(
        self, status_filter: SandboxStatus | None = None, *, status: SandboxStatus | None = None
    ) -> list[SandboxInfo]:
        """Describe all sandboxes, or those with one status (`status` is the same filter)."""
        wanted = status_filter if status_filter is not None else status
        return [
            sandbox.get_info()
            for sandbox in self._registry.sandboxes.values()
            if wanted is None or sandbox.status == wanted
        ]

    async def stop_sandbox(self, sandbox_id: str) -> bool:
        """End its processes and keep its record; False if there is none.

        A pool that it belongs to makes another one in its place.
        """
        sandbox = self._registry.sandboxes.get(sandbox_id)
        if sandbox is None:
            return False
        self._expel(sandbox)
        await sandbox.stop()
        return True

    async def delete_sandbox(self, sandbox_id: str) -> bool:
        """End it and forget it; False if there is none.

        A pool that it belongs to makes another one in its place.
        """
        sandbox = self._registry.sandboxes.get(sandbox_id)
        if sandbox is None:
            return False
        await self._delete(sandbox)
        return True

    async def execute_tool(
        self, sandbox_id: str, tool_name: str, parameters: dict[str, Any]
    ) -> ToolResult:
        """Run one tool in one sandbox."""
        await self._need_running()
        return await self._registry.usable(sandbox_id).execute_tool(tool_name, parameters)

    async def get_sandbox_tools(self, sandbox_id: str) -> dict[str, Any]:
        """Return the function schema of each of its tools; `SandboxNotFound`."""
        return self._registry.find(sandbox_id).get_available_tools()

    async def get_sandbox_logs(self, sandbox_id: str) -> str:
        """Return the last 16 KiB of what the entrypoint of its pool has said; `SandboxNotFound`.

        Both streams are in it as they came.  It is empty where the pool has no entrypoint.
        """
        sandbox = self._registry.find(sandbox_id)
        entrypoint = sandbox.entrypoint if isinstance(sandbox, LocalSandbox) else None
        return "" if entrypoint is None else entrypoint.output()

    async def put_archive(self, sandbox_id: str, target_dir: str, data: bytes) -> bool:
        """Unpack a tar archive below `target_dir`."""
        await self._need_running()
        sandbox = self._registry.usable(sandbox_id)
        return await sandbox.put_archive(archive.check_target_dir(target_dir), data)

    async def put_dir(self, sandbox_id: str, source_dir: str | Path, target_dir: str) -> bool:
        """Copy the contents of a local directory to `target_dir`, links left out."""
        await self._need_running()
        sandbox = self._registry.usable(sandbox_id)
        return await sandbox.put_dir(source_dir, archive.check_target_dir(target_dir))

    async def get_stats(self) -> dict[str, Any]:
        """Return counts, for people and monitors.

        The `pool_` figures are those of the pools behind `execute_tool_in_pool`.
        """
        sandboxes = list(self._registry.sandboxes.values())
        pools = self._lending.pools
        stats = [pool.pool.stats() for pool in pools]
        return {
            "manager_type": "local",
            "total_sandboxes": len(sandboxes),
            "status_counts": dict(Counter(sandbox.status.value for sandbox in sandboxes)),
            "sandbox_types": dict(Counter(sandbox.sandbox_type.value for sandbox in sandboxes)),
            "running": self._running,
            "cleanup_interval": self._cleanup_interval,
            "pool_size": sum(each.ready + each.leased + each.resetting for each in stats),
            "pool_enabled": self.config.pool_size > 0,
            "pool_initialized": self._pool_initialized,
            "pool_free": sum(each.ready for each in stats),
            "pool_busy": sum(each.leased + each.resetting for each in stats),
            "pool_waiting": sum(each.waiting for each in stats),
            "pool_target": sum(pool.spec.warm for pool in pools),
            "pool_create_failures": sum(each.create_failures for each in stats),
            "pool_last_error": next((each.last_error for each in stats if each.last_error), None),
        }

    async def cleanup_all_sandboxes(self) -> None:
        """Delete everything that this manager owns, pools included; `DestroyFailed`."""
        await self._pools.close_all()
        failures = await self._delete_all(list(self._registry.sandboxes.values()))
        if failures:
            raise failures[0]

    # The pool without a name.

    async def initialize_pool(
        self,
        pool_size: int | None = None,
        sandbox_type: SandboxType | None = None,
        config: SandboxConfig | dict[str, Any] | None = None,
    ) -> list[str]:
        """Warm a pool for `execute_tool_in_pool` and return its members' ids."""
        await self._need_running()
        size = pool_size if pool_size is not None else self.config.pool_size
        if size <= 0:
            _log.warning("initialize_pool: a pool of %d sandboxes is none, nothing is made", size)
            return []
        self._check_room(size)
        kind = parse_type(sandbox_type if sandbox_type is not None else SandboxType.DOCKER)
        parsed = parse_config(kind, config if config is not None else self.config.sandbox_config)
        return await self._lending.initialize(size, kind, parsed)

    async def execute_tool_in_pool(
        self, tool_name: str, parameters: dict[str, Any], timeout: float | None = None
    ) -> ToolResult:
        """Borrow a sandbox, run one tool in it, and give it back."""
        if not self._lending.is_initialized:
            if not (self._running and self.config.pool_size):
                raise PoolNotInitialized("there is no sandbox pool; call initialize_pool first")
            await self.initialize_pool()
        await self._need_running()
        wait = timeout if timeout is not None else self.config.timeout
        return await self._lending.run(tool_name, parameters, wait)

    # Pools, by name.

    async def create_pool(self, spec: PoolSpec, *, pool_id: str | None = None) -> PoolInfo:
        """Make a pool and start to fill it; `pool_id` is that of one that is made again."""
        await self._need_running()
        if self._pools.has(spec.name):
            raise PoolExists(f"there is a pool {spec.name!r} already")
        self._check_room(spec.warm)
        pool_launch(spec, self._secrets)  # raises what is wrong with it
        choice = self._workshop.choose(spec)
        await self._workshop.prepare_choice(choice)
        pool = self._new_pool(spec, choice.kind, choice.config, pool_id)
        await self._pools.open(pool)
        pool.tell("pool.created")
        return pool.info()

    async def list_pools(self) -> list[PoolInfo]:
        """Describe all pools, those of `initialize_pool` included."""
        return [pool.info() for pool in self._pools.all()]

    async def get_pool(self, name: str) -> PoolInfo:
        """Describe one pool; `PoolNotFound`."""
        return self._pools.get(name).info()

    async def list_images(self) -> list[ImageInfo]:
        """List the images that have a name, that its pools use, or that it is getting, by name."""
        stored = await anyio.to_thread.run_sync(image_store().all)
        names, pulls = self._workshop.images, self._backends.pulls()
        users: dict[str, list[str]] = {name: [] for name in names}
        users |= {image.name: [] for image in stored if image.name not in users}
        users |= {name: [] for name in pulls if name not in users}
        for pool in self._pools.all():
            users.setdefault(pool.image, []).append(pool.name)
        return [
            ImageInfo(
                name=name, pools=tuple(sorted(users[name])), pull=pulls.get(names.get(name, name))
            )
            for name in sorted(users)
        ]

    async def update_pool(self, name: str, spec: PoolSpec) -> PoolInfo:
        """Give a pool a new definition."""
        await self._need_running()
        pool = self._pools.get(name)
        if spec.name != name:
            raise InvalidSpec(f"a pool keeps its name: {name!r} cannot become {spec.name!r}")
        if pool in self._lending.pools:
            raise InvalidSpec(f"pool {name!r} is defined by initialize_pool; call that instead")
        spec = unredacted_spec(spec, pool.spec)
        choice = self._workshop.choose(spec)
        members = None
        launch = pool_launch(spec, self._secrets)
        # Also where the definition is the same: its image's name may be another image's by now.
        if choice != pool.members.made_of or launch != pool_launch(pool.spec, self._secrets):
            await self._workshop.prepare_choice(choice)
            members = self._members(spec, choice.kind, choice.config)
        if self._pools.get(name) is pool:
            secrets = chosen_secrets(spec.secret_names, self._secrets)
            pool.update(spec, members, secrets=secrets)
            pool.tell("pool.updated")
        return pool.info()

    async def delete_pool(self, name: str, *, force: bool = False) -> None:
        """Remove a pool; `PoolInUse` while it has leases, unless `force` ends them."""
        pool = self._pools.get(name)
        await self._pools.close(pool, force=force)
        pool.tell("pool.deleted")

    async def check_pool(self, name: str, *, check_health: bool = False) -> list[SandboxReference]:
        """Describe a pool's ready sandboxes, oldest first, without taking any."""
        await self._need_running()
        return await self._pools.get(name).look(check_health=check_health)

    async def wait_pool_warm(self, name: str, count: int | None = None) -> None:
        """Wait until `count` sandboxes (by default all of `warm`) are ready; `PoolDegraded`."""
        await self._need_running()
        await self._pools.get(name).pool.wait_warm(count)

    async def claim(
        self,
        pool: str,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        check_health: bool | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        lifetime: float | None = None,
        limits: LimitChange | None = None,
    ) -> ServiceSandbox:
        """Take a sandbox for good: it is the caller's until deleted or expired."""
        await self._need_running()
        tenancy = await self._pools.get(pool).claim(
            timeout=timeout,
            min_remaining=min_remaining,
            check=check_health,
            env=env,
            cwd=cwd,
            lifetime=lifetime,
            limits=limits,
        )
        return tenancy.handle

    def pool_ports(self, name: str) -> tuple[int, ...]:
        """Return the ports that a pool's definition names; `PoolNotFound`."""
        return self._pools.get(name).spec.ports

    def pool_membership(self, name: str) -> Membership:
        """Return the ids of a pool's sandboxes that are ready or claimed; `PoolNotFound`."""
        return self._pools.get(name).membership()

    def replace_idle(self, name: str) -> None:
        """Replace a pool's idle sandboxes by new ones, claimed ones left alone; `PoolNotFound`."""
        self._pools.get(name).pool.replace_idle()

    async def extend_sandbox(self, sandbox_id: str, lifetime: float) -> None:
        """Let a claimed sandbox end `lifetime` seconds from now, or with its own life if sooner.

        Raises `SandboxNotFound`, `InvalidSpec`, and `Unsupported` for one that nobody has claimed:
        it has no end to put off.
        """
        await self._need_running()
        if not 0 < lifetime < float("inf"):
            raise InvalidSpec(f"lifetime must be a positive number of seconds, not {lifetime!r}")
        self._registry.find(sandbox_id)
        tenancy = self.find_claim(sandbox_id)
        if tenancy is None:
            raise Unsupported(f"sandbox {sandbox_id} was not claimed from a pool and has no end")
        tenancy.extend(lifetime)

    def usable_sandbox(self, sandbox_id: str) -> ServiceSandbox:
        """Return the handle that calls by this id go to.

        Raises `SandboxNotFound`, `SandboxNotActive`, `SandboxLeased` for one that is not its
        caller's, `LeaseOver` or `SandboxDied` for one that has ended, and `Unsupported` for a kind
        that only runs tools.
        """
        self._check_ended(sandbox_id)
        sandbox = self._registry.usable(sandbox_id)
        if not isinstance(sandbox, LocalSandbox):
            raise Unsupported(f"a {sandbox.sandbox_type.value} sandbox only runs tools")
        return sandbox

    def find_gate(self, sandbox_id: str) -> Gate:
        """Return the way into the ports of a sandbox, for those who call it by its id.

        Raises `SandboxNotFound`, `SandboxLeased` for one that is not its caller's, `LeaseOver` or
        `SandboxDied` for one that has ended, and `Unsupported`.
        """
        self._check_ended(sandbox_id)
        sandbox = self._registry.find(sandbox_id)
        if not isinstance(sandbox, LocalSandbox):
            raise Unsupported(f"a {sandbox.sandbox_type.value} sandbox only runs tools")
        return sandbox.gate()

    def _check_ended(self, sandbox_id: str) -> None:
        over = self._registry.farewell(sandbox_id)
        if over is not None:
            raise over.with_traceback(None)

    def find_claim(self, sandbox_id: str) -> Tenancy | None:
        """Return the tenancy of a claimed sandbox; None for any other."""
        tenure = self._registry.tenure(sandbox_id)
        if tenure is None or not self._pools.has(tenure.pool):
            return None
        return self._pools.get(tenure.pool).claims.get(sandbox_id)

    async def borrow(
        self,
        pool: str,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        lifetime: float | None = None,
        limits: LimitChange | None = None,
    ) -> Tenancy:
        """Borrow a sandbox until the tenancy is ended: what `lease` does, without the block."""
        await self._need_running()
        return await self._pools.get(pool).borrow(
            timeout=timeout,
            min_remaining=min_remaining,
            env=env,
            cwd=cwd,
            lifetime=lifetime,
            limits=limits,
        )

    def lease(
        self,
        pool: str,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        limits: LimitChange | None = None,
    ) -> AbstractAsyncContextManager[ServiceSandbox]:
        """Borrow a sandbox for the length of an `async with` block."""
        return Loan(
            lambda: self.borrow(
                pool,
                timeout=timeout,
                min_remaining=min_remaining,
                env=env,
                cwd=cwd,
                limits=limits,
            )
        )

    # What suites written for the enclave interface look at.

    @property
    def _sandboxes(self) -> dict[str, Sandbox]:
        return self._registry.sandboxes

    @property
    def _sandbox_pool(self) -> list[str]:
        return self._lending.free_ids()

    @property
    def _pool_initialized(self) -> bool:
        return self._lending.is_initialized

    # How it is put together.

    def _new_pool(
        self, spec: PoolSpec, kind: SandboxType, config: SandboxConfig, pool_id: str | None = None
    ) -> SandboxPool:
        members = self._members(spec, kind, config)
        return SandboxPool(
            spec,
            members,
            registry=self._registry,
            clock=self._clock,
            first_epoch=self._first_epoch,
            pool_id=pool_id,
            secrets=chosen_secrets(spec.secret_names, self._secrets),
            on_lease=self._on_lease,
            on_event=self._on_event,
        )

    def _members(self, spec: PoolSpec, kind: SandboxType, config: SandboxConfig) -> Members:
        made_of = self._workshop.describe(kind, config)
        launcher = Launcher(
            pool_launch(spec, self._secrets),
            pool_health(spec),
            runtime=self._runtime,
            clock=self._clock,
        )
        make = self._workshop.maker(made_of)
        return Members(spec.name, make, self._registry, launcher, made_of)

    def _candidates(self) -> Iterator[Candidate]:
        for sandbox in self._registry.own():
            yield Candidate(
                id=sandbox.id,
                status=sandbox.status,
                age=self._clock.now() - sandbox.since,
                is_in_use=sandbox.is_in_use,
            )

    def _check_room(self, count: int) -> None:
        if count > self._registry.limit:
            raise NoCapacity(
                f"a pool of {count} is more than the {self._registry.limit} sandboxes that this "
                "manager may have (max_sandboxes)"
            )

    def _expel(self, sandbox: Sandbox) -> None:
        """Take a sandbox out of its pool, if it has one; it will not be lent again."""
        tenure = self._registry.tenure(sandbox.id)
        if tenure is None:
            return
        self._registry.detach(sandbox.id)
        if not self._pools.has(tenure.pool):
            return
        pool = self._pools.get(tenure.pool)
        claim = pool.claims.get(sandbox.id)
        if claim is not None:
            claim.spoil()
        else:
            pool.pool.report_dead(sandbox)

    async def _delete(self, sandbox: Sandbox) -> None:
        self._expel(sandbox)
        await end(sandbox)
        if self._registry.sandboxes.get(sandbox.id) is sandbox:
            self._registry.remove(sandbox.id)

    async def _delete_all(self, sandboxes: list[Sandbox]) -> list[SandpoolError]:
        """Delete them at the same time, and return what went wrong."""
        failures: list[SandpoolError] = []

        async def delete(sandbox: Sandbox) -> None:
            try:
                await self._delete(sandbox)
            except SandpoolError as error:
                _log.exception("sandbox %s could not be deleted", sandbox.id)
                failures.append(error)

        async with anyio.create_task_group() as group:
            for sandbox in sandboxes:
                group.start_soon(delete, sandbox)
        return failures


def _check_id(sandbox_id: str | None) -> str | None:
    if sandbox_id is not None and not re.fullmatch(NAME_PATTERN, sandbox_id):
        raise InvalidSpec(f"sandbox_id {sandbox_id!r} does not match {NAME_PATTERN}")
    return sandbox_id
