"""`Namespace`: the sandboxes of one namespace as this dialect's clients see them.

The manager knows containers; here are the sandboxes that containers become, those that wait to
become one, and those that have been.

    N1  A container belongs to at most one record that is not over.
    N2  A name belongs to at most one record that is not over.
    N3  Records that are over are forgotten after a time, or sooner where there are very many.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Literal

import anyio

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.home import Home, Service
from sandpool.dialects.tensorlake.models import (
    DEFAULT_DISK_MB,
    DEFAULT_MEMORY_MB,
    PendingReason,
    Resources,
    SandboxChange,
    SandboxRequest,
)
from sandpool.dialects.tensorlake.names import check_name, new_id
from sandpool.dialects.tensorlake.pool_book import PoolBook
from sandpool.dialects.tensorlake.pool_definition import check_secrets
from sandpool.dialects.tensorlake.process_models import (
    RunRequest,
    StartRequest,
    TerminalRequest,
)
from sandpool.dialects.tensorlake.process_record import ProcessRecord
from sandpool.dialects.tensorlake.process_table import Spawn
from sandpool.dialects.tensorlake.record import Blueprint, Record, resources_info
from sandpool.dialects.tensorlake.settings import DialectSettings
from sandpool.dialects.tensorlake.terminal import Terminal
from sandpool.errors import (
    InvalidSpec,
    NoCapacity,
    PoolDegraded,
    PoolInUse,
    SandboxExists,
    SandboxNotActive,
    SandboxNotFound,
    SandpoolError,
    Unsupported,
)
from sandpool.manager.recipe import parse_config
from sandpool.models import SandboxStatus, SandboxType
from sandpool.pool.bound import within
from sandpool.service import Sandbox

_log = logging.getLogger(__name__)

_MOST_PENDING = 1_000
"""Sandboxes that may wait for a container; one more is refused."""
_MOST_OVER = 1_000
_KEPT_FOR = 3600.0
"""Seconds for which a sandbox that is over can still be asked about."""
_UNLIMITED = 3.0e8
"""Seconds.  The pool is not to end its sandboxes: when their time is up they are suspended here."""
_SIGNAL_BOUND = 5.0
_DELETE_BOUND = 10.0

_ALIVE = frozenset({SandboxStatus.RUNNING, SandboxStatus.IDLE, SandboxStatus.BUSY})

Take = Callable[[], Awaitable[Sandbox]]
_Over = Literal["terminated", "failed"]


class Namespace:
    """The records of one namespace."""

    def __init__(
        self, home: Home, settings: DialectSettings, *, clock: Clock, spawn: Spawn
    ) -> None:
        """Begin without any; `spawn` starts tasks that outlive requests."""
        self.name = home.namespace
        self.pools = PoolBook(home, settings.secrets, clock)
        self._service: Service = home.service
        self._settings = settings
        self._clock = clock
        self._spawn = spawn
        self._records: dict[str, Record] = {}
        self._names: dict[str, Record] = {}  # Invariant N2
        self._over: list[Record] = []  # Invariant N3, oldest end first

    # Finding.

    def active(self) -> list[Record]:
        """Return the sandboxes that are not over, oldest first."""
        return [record for record in self._records.values() if not record.is_over]

    def over(self) -> list[Record]:
        """Return those that are, the last one to end first."""
        return self._over[::-1]

    def find(self, id_or_name: str) -> Record:
        """Return a sandbox by its id, or by the name of one that is not over; `SandboxNotFound`."""
        record = self._records.get(id_or_name) or self._names.get(id_or_name)
        if record is None:
            raise SandboxNotFound(f"there is no sandbox {id_or_name}")
        self._notice_death(record)
        return record

    def has(self, sandbox_id: str) -> bool:
        """Whether a sandbox has this id."""
        return sandbox_id in self._records

    def by_container(self) -> dict[str, str]:
        """Map the ids of claimed containers to those of the sandboxes that they have become."""
        return {
            record.container: record.id
            for record in self.active()
            if record.container is not None  # Invariant N1
        }

    async def pending_reason(self, record: Record) -> PendingReason:
        """Return what a sandbox waits for."""
        if record.pool_id is None:
            return "scheduling"
        info = await self._service.get_pool(record.pool_id)
        return "pool_at_capacity" if info.leased >= info.spec.max else "waiting_for_container"

    # Making.

    async def claim(self, pool_id: str, *, max_pending_secs: int | None = None) -> Record:
        """Begin to claim a sandbox from a pool; `PoolNotFound`, `NoCapacity`, `InvalidSpec`.

        Claims are served in the order in which they come.
        """
        plan = await self.pools.blueprint(pool_id)
        env = self._secret_env(plan.secret_names)
        record = self._add(
            Record(
                id=new_id(),
                blueprint=plan,
                created_at=self._clock.utc(),
                pool_id=pool_id,
                network=plan.network,
            )
        )

        async def take() -> Sandbox:
            sandbox = await self._service.claim(pool_id, env=env, lifetime=_UNLIMITED)
            # The pool may have been changed since the claim came; it was not since this container
            # was made from it, or the container would have been replaced.
            record.blueprint = await self.pools.blueprint(pool_id)
            return sandbox

        self._spawn(lambda: self._obtain(record, take, max_pending_secs))
        return record

    async def create(self, wanted: SandboxRequest) -> Record:
        """Begin to make a sandbox that belongs to no pool; `SandboxExists`, and as `claim`."""
        plan = self._lone_blueprint(wanted)
        limits = plan.resources
        config = parse_config(
            SandboxType.NATIVE,
            {
                "image": plan.image,
                "env_vars": self._secret_env(plan.secret_names),
                "resource_limits": {
                    "cpus": limits.cpus,
                    "memory_mb": limits.memory_mb,
                    "disk_mb": limits.disk_mb,
                },
            },
        )
        record = self._add(
            Record(
                id=new_id(),
                blueprint=plan,
                created_at=self._clock.utc(),
                name=wanted.name,
                network=plan.network,
                allow_unauthenticated_access=wanted.allow_unauthenticated_access,
                exposed_ports=wanted.exposed_ports,
                auto_resume=wanted.auto_resume,
            )
        )

        async def take() -> Sandbox:
            container = await self._service.create_sandbox(SandboxType.NATIVE, config)
            return self._service.usable_sandbox(container)

        self._spawn(lambda: self._obtain(record, take, wanted.max_pending_secs))
        return record

    def _lone_blueprint(self, wanted: SandboxRequest) -> Blueprint:
        if wanted.snapshot_id is not None:
            raise Unsupported("snapshot_id: sandboxes here have no snapshots")
        resources = wanted.resources or Resources()
        return Blueprint(
            image=wanted.image or self._settings.default_image,
            resources=resources_info(
                cpus=1.0 if resources.cpus is None else resources.cpus,
                memory_mb=resources.memory_mb or DEFAULT_MEMORY_MB,
                disk_mb=resources.disk or DEFAULT_DISK_MB,
            ),
            timeout_secs=wanted.timeout_secs or 0,
            entrypoint=wanted.entrypoint or None,
            network=wanted.network,
            secret_names=wanted.secret_names,
        )

    def _secret_env(self, names: tuple[str, ...]) -> dict[str, str]:
        check_secrets(names, self._settings.secrets)
        return {name: self._settings.secrets[name] for name in names}

    def _add(self, record: Record) -> Record:
        pending = sum(each.status == "pending" for each in self._records.values())
        if pending >= _MOST_PENDING:
            raise NoCapacity(f"{pending} sandboxes wait for a container", retry_after=1.0)
        if record.name is not None:
            self._check_free(record.name)
            self._names[record.name] = record
        self._records[record.id] = record
        return record

    def _check_free(self, name: str) -> None:
        check_name(name)
        if name in self._names:
            raise SandboxExists(f"there is a sandbox {name!r} already")

    async def _obtain(self, record: Record, take: Take, max_pending_secs: int | None) -> None:
        """Wait for a container, and make the record a running sandbox or one that is over."""
        found: list[Sandbox] = []

        async def obtain() -> None:
            found.append(await take())

        try:
            with record.obtaining:
                if max_pending_secs is None:
                    await obtain()
                else:
                    await within(self._clock, float(max_pending_secs), obtain)
        except TimeoutError as error:
            self._finish(record, "terminated", reason="no_capacity", details=str(error) or None)
        except Exception as error:  # noqa: BLE001 (whatever it is, the client has to be told)
            if isinstance(error, SandpoolError):
                record.failure = error
            else:
                _log.exception("sandbox %s could not be made", record.id)
            self._finish(record, "failed", reason=_failure_reason(error), details=str(error))
        for sandbox in found:
            if record.is_over:
                # It came too late: nobody else knows of it.
                with anyio.move_on_after(_DELETE_BOUND, shield=True):
                    await self._service.delete_sandbox(sandbox.id)
            else:
                await self._begin(record, sandbox)

    async def _begin(self, record: Record, sandbox: Sandbox) -> None:
        record.sandbox = sandbox
        record.move("running")
        self._start_timer(record)
        entrypoint = record.blueprint.entrypoint
        if entrypoint is not None:
            command, *args = entrypoint
            try:
                await self.start_process(record, StartRequest(command=command, args=tuple(args)))
            except SandpoolError as error:
                record.error_details = f"the entrypoint could not be started: {error}"

    def _start_timer(self, record: Record) -> None:
        seconds = record.blueprint.timeout_secs
        record.expires_at = self._clock.now() + seconds if seconds else None

    # Running things.

    async def need_running(self, record: Record) -> Sandbox:
        """Return what calls go to, waking a suspended sandbox that may be woken by them.

        Raises `SandboxNotActive`, and `SandboxNotFound` for one that is over.
        """
        if record.is_over or record.is_ending:
            raise SandboxNotFound(f"sandbox {record.id} is terminated")
        if record.status == "suspended" and record.auto_resume:
            await self.resume(record)
        if record.status != "running" or record.sandbox is None:
            raise SandboxNotActive(f"sandbox {record.id} is {record.status}")
        return record.sandbox

    async def start_process(self, record: Record, wanted: RunRequest) -> ProcessRecord:
        """Start a command that goes on by itself; raises what `ProcessTable.start` does."""
        sandbox = await self.need_running(record)
        return await record.processes.start(sandbox, wanted, clock=self._clock, spawn=self._spawn)

    async def open_terminal(self, record: Record, wanted: TerminalRequest) -> Terminal:
        """Start a command on a terminal; raises what `Sandbox.open_pty` does, and `NoCapacity`."""
        if wanted.timeout is not None:
            raise InvalidSpec("timeout: a terminal has none; delete it instead")
        sandbox = await self.need_running(record)
        record.terminals.check_room()
        process = await sandbox.open_pty(
            (wanted.command, *wanted.args),
            rows=wanted.rows,
            cols=wanted.cols,
            env=wanted.env,
            cwd=wanted.working_dir,
        )
        terminal = record.terminals.add(process)
        self._spawn(terminal.follow)
        return terminal

    # Changing.

    def change(self, record: Record, wanted: SandboxChange) -> None:
        """Change what can be changed; `SandboxExists`, `InvalidSpec`, `Unsupported`."""
        if wanted.resources is not None:
            raise Unsupported("resources: a sandbox here keeps the size that it was made with")
        if wanted.auto_resume is False and (wanted.name or record.name) is None:
            raise InvalidSpec("auto_resume: only a sandbox with a name can be left suspended")
        if wanted.name is not None and wanted.name != record.name:
            self._check_free(wanted.name)
            if record.is_over:
                raise SandboxNotActive(f"sandbox {record.id} is {record.status}")
            if record.name is not None:
                del self._names[record.name]
            record.name = wanted.name
            self._names[wanted.name] = record
        if "network" in wanted.model_fields_set:
            record.network = wanted.network
        if wanted.allow_unauthenticated_access is not None:
            record.allow_unauthenticated_access = wanted.allow_unauthenticated_access
        if wanted.exposed_ports is not None:
            record.exposed_ports = wanted.exposed_ports
        if wanted.auto_resume is not None:
            record.auto_resume = wanted.auto_resume

    async def suspend(self, record: Record) -> None:
        """Stop its processes where they are; `SandboxNotActive` unless it runs."""
        if record.status == "suspended":
            return
        if record.status != "running" or record.is_ending:
            raise SandboxNotActive(f"sandbox {record.id} is {record.status}, and cannot suspend")
        record.move("suspending")
        record.expires_at = None
        await self._signal_all(record, signal.SIGSTOP)
        if not record.is_over:
            record.move("suspended")

    async def resume(self, record: Record) -> None:
        """Let its processes go on; `SandboxNotActive` unless it is suspended or runs."""
        while record.status == "suspending":
            await record.wait_change()
        if record.status == "running":
            return
        if record.status != "suspended" or record.is_ending:
            raise SandboxNotActive(f"sandbox {record.id} is {record.status}, and cannot resume")
        record.move("running")
        self._start_timer(record)
        await self._signal_all(record, signal.SIGCONT)

    async def _signal_all(self, record: Record, number: int) -> None:
        running: list[ProcessRecord | Terminal] = [
            *record.processes.running(),
            *record.terminals.running(),
        ]
        # Cancel: half of them stopped would be neither one state nor the other.
        with anyio.move_on_after(_SIGNAL_BOUND, shield=True):
            for each in running:
                try:
                    await each.send_signal(number)
                except SandpoolError as error:
                    _log.warning("signal %d in sandbox %s: %s", number, record.id, error)

    # Ending.

    async def terminate(self, record: Record) -> None:
        """End a sandbox and destroy its container; no effect on one that is over."""
        if record.status == "pending":
            record.obtaining.cancel()
            self._finish(record, "terminated", reason="cancelled", details=None)
        else:
            self._begin_end(record, None)
        # Cancel: the end goes on by itself; only the wait for it is given up.
        while not record.is_over:
            await record.wait_change()

    async def delete_pool(self, pool_id: str) -> None:
        """Remove a pool; `PoolNotFound`, and `PoolInUse` while a sandbox of it is not over."""
        await self.pools.check_exists(pool_id)
        users = [record for record in self.active() if record.pool_id == pool_id]
        if users:
            raise PoolInUse(f"pool {pool_id} has {len(users)} sandboxes that are not terminated")
        await self.pools.delete(pool_id)

    def tend(self) -> None:
        """Do what is due: end what has died, suspend what has run its time, forget the old."""
        now = self._clock.now()
        for record in self.active():
            self._notice_death(record)
            if record.expires_at is not None and record.expires_at <= now:
                record.expires_at = None
                self._time_out(record)
        self._forget_old(now)

    def _time_out(self, record: Record) -> None:
        if self._settings.on_timeout == "suspend":
            self._spawn(lambda: self._suspend_quietly(record))
        else:
            self._begin_end(record, "timeout")

    async def _suspend_quietly(self, record: Record) -> None:
        try:
            await self.suspend(record)
        except SandboxNotActive:
            return  # it has just been ended, or suspended by request

    def _notice_death(self, record: Record) -> None:
        if record.sandbox is None or record.is_over:
            return
        if record.sandbox.status not in _ALIVE:
            self._begin_end(record, "container_terminated")

    def _begin_end(self, record: Record, reason: str | None) -> None:
        if not record.is_over and not record.is_ending:
            record.is_ending = True
            self._spawn(lambda: self._destroy(record, reason))

    async def _destroy(self, record: Record, reason: str | None) -> None:
        details: str | None = None
        try:
            assert record.container is not None
            info = await self._service.get_sandbox_info(record.container)
            if info is not None and reason is not None:
                details = str(info.metadata.get("error", "")) or None
            await self._service.delete_sandbox(record.container)
        except Exception as error:  # noqa: BLE001 (whatever it is, nothing runs in it any more)
            _log.exception("the container of sandbox %s could not be destroyed", record.id)
            details = str(error)
        self._finish(record, "terminated", reason=reason, details=details)

    def _finish(
        self, record: Record, status: _Over, *, reason: str | None, details: str | None
    ) -> None:
        if record.is_over:
            return
        record.termination_reason = reason
        record.error_details = details
        record.terminated_at = self._clock.utc()
        record.ended_at = self._clock.now()
        record.expires_at = None
        record.sandbox = None
        if record.name is not None:
            del self._names[record.name]
        self._over.append(record)
        record.move(status)
        self._forget_old(record.ended_at)

    def _forget_old(self, now: float) -> None:
        while self._over:
            oldest = self._over[0]
            is_old = oldest.ended_at is not None and now - oldest.ended_at > _KEPT_FOR
            if not is_old and len(self._over) <= _MOST_OVER:
                return
            del self._over[0]
            del self._records[oldest.id]


def _failure_reason(error: Exception) -> str:
    """Return the word for why a sandbox could not be had."""
    if isinstance(error, NoCapacity | PoolDegraded):
        return "no_capacity"
    return error.code if isinstance(error, SandpoolError) else "internal_error"
