"""`HttpSandboxManager`: the sandboxes of a server, through the same interface as local ones.

It keeps nothing that the server knows: which sandboxes it has made and which leases it holds, so
that it can end them, is all of its state.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from sandpool import config as settings
from sandpool.client import answers
from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import (
    InvalidSpec,
    ManagerNotStarted,
    PoolNotFound,
    PoolNotInitialized,
    SandboxNotFound,
    SandpoolError,
    ToolNotFound,
    Unsupported,
)
from sandpool.ids import new_token
from sandpool.manager import archive
from sandpool.manager.manager import SandboxManager
from sandpool.manager.recipe import parse_type
from sandpool.manager.runtime import Runtime
from sandpool.models import (
    NAME_PATTERN,
    ImageInfo,
    LimitChange,
    PoolInfo,
    PoolSpec,
    SandboxConfig,
    SandboxInfo,
    SandboxManagerConfig,
    SandboxReference,
    SandboxStatus,
    SandboxType,
    ToolResult,
)
from sandpool.service import Sandbox
from sandpool.wire.requests import (
    Claimed,
    ClaimRequest,
    Extension,
    InitializePool,
    Leased,
    LeaseRequest,
    NewSandbox,
    SandboxPage,
)

if TYPE_CHECKING:
    from sandpool.client.calls import Answer, Params
    from sandpool.client.loan import HeldLease
    from sandpool.client.remote_sandbox import RemoteSandbox

_log = logging.getLogger(__name__)

_STOP_BOUND = 60.0
"""Seconds that `stop` may take."""

_KEEP_ALIVE = 60.0
"""Seconds that a lease lasts, by default, after its holder was last heard of."""


class HttpSandboxManager(SandboxManager):
    """Uses the pools and sandboxes of a server.

    Implements `SandboxService`, whose docstrings say what each method does.  What the server or the
    way to it refuses is raised as the class that a local manager would raise, and a server that
    cannot be reached as `ServerUnreachable`.  Cancelled calls leave nothing on the server.

    Pools are the server's: they stay when this manager stops, as do claimed sandboxes.
    """

    def __init__(
        self,
        config: SandboxManagerConfig | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        keep_alive: float = _KEEP_ALIVE,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Describe it; nothing is connected before the first call.

        Args:
            config: Its settings; those that speak of sweeps and limits are the server's to decide.
            base_url: Where the server is; by default what `config`, or else `SANDPOOL_URL`, says.
            api_key: Who is calling; by default what `config`, or else `SANDPOOL_API_KEY`, says.
            timeout: Seconds that a pool call waits for a sandbox, where neither it nor `config`
                says; it never bounds what runs.
            keep_alive: Seconds that a lease lasts on the server after its holder was last heard of.
            ssl_context: What an `https` server is checked against; by default the system's
                authorities.
            clock: What time is.

        Raises:
            InvalidSpec: No server is named, or not by a URL.
            Unsupported: The packages that calls to a server need are not installed.
        """
        super().__init__(config)
        url = base_url or self.config.base_url or settings.server_url()
        if not url:
            raise InvalidSpec(f"base_url: give it here or in the config, or set {settings.URL}")
        self._timeout = self.config.timeout if timeout is None else timeout
        self._keep_alive = keep_alive
        self._clock = clock if clock is not None else MonotonicClock()
        try:
            from sandpool.client.transport import Transport
        except ImportError as error:
            raise Unsupported(
                f"calls to a server need {error.name}: pip install 'sandpool[client]'"
            ) from error
        self._transport = Transport(
            url,
            api_key or self.config.api_key or settings.api_key(),
            ssl_context=ssl_context,
            clock=self._clock,
        )
        self._runtime = Runtime()
        self._made: dict[str, SandboxType] = {}
        self._leases: set[HeldLease] = set()
        self._running = False

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._transport.base_url

    def __repr__(self) -> str:
        return f"<HttpSandboxManager {self.base_url}>"

    # Its life.

    async def start(self) -> None:
        """Begin, without asking whether the server is there; no effect on a running one."""
        await self._transport.start()
        self._running = True

    async def stop(self) -> None:
        """Delete the sandboxes made by `create_sandbox`, end the leases, and close connections.

        No effect on a stopped one.  Shielded from cancellation and bounded; failures are logged.
        Pools and claimed sandboxes stay: others may use them, and the server ends them in time.
        """
        if not self._running:
            return
        self._running = False
        with anyio.move_on_after(_STOP_BOUND, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for lease in list(self._leases):
                    group.start_soon(self._end_lease, lease)
                for sandbox_id in list(self._made):
                    group.start_soon(self._delete_own, sandbox_id)
            await self._runtime.aclose()
            await self._transport.aclose()
        if scope.cancelled_caught:
            _log.error("stopping took longer than %s s and was given up", _STOP_BOUND)
        self._made.clear()
        self._leases.clear()

    async def health_check(self) -> dict[str, Any]:
        """Return what the server says of itself; an unreachable one is `{"healthy": False, ...}`.

        There, `error` says why.
        """
        self._need_running()
        try:
            response = await self._transport.call("GET", "/healthz")
            return answers.parse_as(answers.TABLE, response.content)
        except SandpoolError as error:
            return {"healthy": False, "error": str(error)}

    # Sandboxes, by id.

    async def create_sandbox(
        self,
        sandbox_type: SandboxType,
        config: SandboxConfig | dict[str, Any] | None = None,
        sandbox_id: str | None = None,
    ) -> str:
        """Make and start a sandbox and return its id."""
        self._need_running()
        kind = parse_type(sandbox_type)
        fields = answers.config_fields(kind, config)
        response = await self._transport.obtain(
            "/v1/sandboxes",
            json=answers.body(NewSandbox, type=kind, id=sandbox_id, config=fields),
            take_back=self._delete_unused,
        )
        info = answers.parse(SandboxInfo, response.content)
        self._made[info.id] = kind
        return info.id

    async def get_sandbox(self, sandbox_id: str) -> RemoteSandbox | None:
        """Return a sandbox; None if there is none with this id.

        Calls on one that is lent to somebody else raise `SandboxLeased`.
        """
        info = await self.get_sandbox_info(sandbox_id)
        return None if info is None else self._handle(info)

    async def get_sandbox_info(self, sandbox_id: str) -> SandboxInfo | None:
        """Describe a sandbox; None if there is none with this id."""
        self._need_running()
        try:
            response = await self._transport.call("GET", _path(sandbox_id))
        except SandboxNotFound:
            return None
        return answers.parse(SandboxInfo, response.content)

    async def list_sandboxes(
        self, status_filter: SandboxStatus | None = None, *, status: SandboxStatus | None = None
    ) -> list[SandboxInfo]:
        """Describe all sandboxes, or those with one status (`status` is the same filter)."""
        self._need_running()
        wanted = status_filter if status_filter is not None else status
        found: list[SandboxInfo] = []
        cursor: str | None = None
        while True:
            response = await self._transport.call(
                "GET", "/v1/sandboxes", params={"status": wanted, "cursor": cursor}
            )
            page = answers.parse(SandboxPage, response.content)
            found += page.items
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor

    async def stop_sandbox(self, sandbox_id: str) -> bool:
        """End its processes and keep its record; False if there is none."""
        self._need_running()
        try:
            await self._post(_path(sandbox_id, "/stop"))
        except SandboxNotFound:
            return False
        return True

    async def delete_sandbox(self, sandbox_id: str) -> bool:
        """End it and forget it; False if there is none."""
        self._need_running()
        try:
            await self._delete(sandbox_id)
        except SandboxNotFound:
            return False
        return True

    def keep_sandbox(self, sandbox_id: str) -> None:
        """Let a sandbox that `create_sandbox` has made live on when this manager stops."""
        self._made.pop(sandbox_id, None)

    async def extend_sandbox(self, sandbox_id: str, lifetime: float) -> None:
        """Let a claimed sandbox end `lifetime` seconds from now, or with its own life if sooner.

        Raises `SandboxNotFound`, `InvalidSpec`, and `Unsupported` for one that nobody has claimed.
        """
        self._need_running()
        await self._post(
            _path(sandbox_id, "/extend"), json=answers.body(Extension, lifetime=lifetime)
        )

    async def execute_tool(
        self, sandbox_id: str, tool_name: str, parameters: dict[str, Any]
    ) -> ToolResult:
        """Run one tool in one sandbox."""
        self._need_running()
        response = await self._transport.call(
            "POST",
            _path(sandbox_id, f"/tools/{_tool(tool_name)}"),
            json={"parameters": parameters},
        )
        return answers.parse(ToolResult, response.content)

    async def get_sandbox_tools(self, sandbox_id: str) -> dict[str, Any]:
        """Return the function schema of each of its tools; `SandboxNotFound`."""
        self._need_running()
        response = await self._transport.call("GET", _path(sandbox_id, "/tools"))
        return answers.parse_as(answers.TABLE, response.content)

    async def get_sandbox_logs(self, sandbox_id: str) -> str:
        """Return the last 16 KiB of what the entrypoint of its pool has said; `SandboxNotFound`."""
        self._need_running()
        response = await self._transport.call("GET", _path(sandbox_id, "/logs"))
        return response.content.decode()

    async def put_archive(self, sandbox_id: str, target_dir: str, data: bytes) -> bool:
        """Unpack a tar archive below `target_dir`."""
        self._need_running()
        target_dir = archive.check_target_dir(target_dir)
        await self._transport.call(
            "PUT",
            _path(sandbox_id, "/archive"),
            content=bytes(data),
            params={"target_dir": target_dir},
        )
        return True

    async def put_dir(self, sandbox_id: str, source_dir: str | Path, target_dir: str) -> bool:
        """Copy the contents of a local directory to `target_dir`, links left out."""
        self._need_running()
        target_dir = archive.check_target_dir(target_dir)
        packed = await anyio.to_thread.run_sync(archive.pack_dir, source_dir)
        return await self.put_archive(sandbox_id, target_dir, packed)

    async def get_stats(self) -> dict[str, Any]:
        """Return the server's counts, and this manager's own; `error` if there is no answer.

        The `tracked_` figures are those of the sandboxes that `create_sandbox` of this object made.
        """
        self._need_running()
        stats: dict[str, Any] = {"pool_size": 0, "pool_initialized": False}
        statuses: Counter[str] = Counter()
        try:
            response = await self._transport.call("GET", "/v1/stats")
            counts: dict[str, Any] = answers.parse_as(answers.TABLE, response.content)
            stats.update(counts)
            if self._made:
                listed = await self.list_sandboxes()
                statuses.update(info.status.value for info in listed if info.id in self._made)
        except SandpoolError as error:
            stats["error"] = str(error)
        return {
            **stats,
            "manager_type": "http",
            "base_url": self.base_url,
            "running": self._running,
            "pool_enabled": self.config.pool_size > 0,
            "tracked_sandboxes": len(self._made),
            "tracked_status_counts": dict(statuses),
            "tracked_sandbox_types": dict(Counter(kind.value for kind in self._made.values())),
        }

    async def cleanup_all_sandboxes(self) -> None:
        """Delete every pool and sandbox of the caller's namespace on the server."""
        self._need_running()
        await self._post("/v1/cleanup")
        self._made.clear()

    # The pool without a name.

    async def initialize_pool(
        self,
        pool_size: int | None = None,
        sandbox_type: SandboxType | None = None,
        config: SandboxConfig | dict[str, Any] | None = None,
    ) -> list[str]:
        """Warm a pool for `execute_tool_in_pool` and return its members' ids.

        Equal calls of any number of clients mean one pool.
        """
        self._need_running()
        size = pool_size if pool_size is not None else self.config.pool_size
        if size <= 0:
            _log.warning("initialize_pool: a pool of %d sandboxes is none, nothing is made", size)
            return []
        kind = parse_type(sandbox_type if sandbox_type is not None else SandboxType.DOCKER)
        own = config if config is not None else self.config.sandbox_config
        fields = answers.config_fields(kind, own)
        response = await self._post(
            "/v1/initialize",
            json=answers.body(InitializePool, pool_size=size, type=kind, config=fields),
        )
        return answers.parse_as(answers.IDS, response.content)

    async def execute_tool_in_pool(
        self, tool_name: str, parameters: dict[str, Any], timeout: float | None = None
    ) -> ToolResult:
        """Borrow a sandbox, run one tool in it, and give it back."""
        self._need_running()
        wait = timeout if timeout is not None else self._timeout
        try:
            return await self._execute(tool_name, parameters, wait)
        except PoolNotInitialized:
            if not self.config.pool_size:
                raise
        await self.initialize_pool()
        return await self._execute(tool_name, parameters, wait)

    # Pools, by name.

    async def create_pool(self, spec: PoolSpec) -> PoolInfo:
        """Make a pool and start to fill it."""
        self._need_running()
        response = await self._transport.obtain(
            "/v1/pools", json=_fields(spec), take_back=self._delete_unused_pool
        )
        return answers.parse(PoolInfo, response.content)

    async def list_pools(self) -> list[PoolInfo]:
        """Describe all pools, those of `initialize_pool` included."""
        self._need_running()
        response = await self._transport.call("GET", "/v1/pools")
        return answers.parse_as(answers.POOLS, response.content)

    async def get_pool(self, name: str) -> PoolInfo:
        """Describe one pool; `PoolNotFound`."""
        self._need_running()
        response = await self._transport.call("GET", _pool(name))
        return answers.parse(PoolInfo, response.content)

    async def list_images(self) -> list[ImageInfo]:
        """List the images that have a name, and those that its pools use, by name."""
        self._need_running()
        response = await self._transport.call("GET", "/v1/images")
        return answers.parse_as(answers.IMAGES, response.content)

    async def update_pool(self, name: str, spec: PoolSpec) -> PoolInfo:
        """Give a pool a new definition."""
        self._need_running()
        response = await self._transport.call("PUT", _pool(name), json=_fields(spec))
        return answers.parse(PoolInfo, response.content)

    async def delete_pool(self, name: str, *, force: bool = False) -> None:
        """Remove a pool; `PoolInUse` while it has leases, unless `force` ends them."""
        self._need_running()
        await self._transport.call("DELETE", _pool(name), params={"force": force or None})

    async def check_pool(self, name: str, *, check_health: bool = False) -> list[SandboxReference]:
        """Describe a pool's ready sandboxes, oldest first, without taking any."""
        self._need_running()
        response = await self._transport.call(
            "GET", _pool(name, "/sandboxes"), params={"check_health": check_health}
        )
        return answers.parse_as(answers.REFERENCES, response.content)

    async def wait_pool_warm(self, name: str, count: int | None = None) -> None:
        """Wait until `count` sandboxes (by default all of `warm`) are ready; `PoolDegraded`."""
        self._need_running()
        await self._post(_pool(name, "/warm"), params={"count": count})

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
    ) -> RemoteSandbox:
        """Take a sandbox for good: it is the caller's until deleted or expired."""
        self._need_running()
        wanted = answers.body(
            ClaimRequest,
            timeout=answers.wait(timeout),
            min_remaining=min_remaining,
            check_health=check_health,
            env=env or {},
            cwd=cwd,
            lifetime=lifetime,
            limits=limits,
        )
        response = await self._transport.obtain(
            _pool(pool, "/claim"), json=wanted, timeout=timeout, take_back=self._delete_claimed
        )
        claimed = answers.parse(Claimed, response.content)
        return self._handle(claimed.sandbox, claimed.remaining)

    def lease(
        self,
        pool: str,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        limits: LimitChange | None = None,
    ) -> AbstractAsyncContextManager[Sandbox]:
        """Borrow a sandbox for the length of an `async with` block.

        The lease is kept alive in the background.  If this program ends without giving it back, or
        the server cannot be reached for `keep_alive` seconds, the server ends it.
        """
        from sandpool.client.loan import RemoteLoan

        async def borrow() -> HeldLease:
            return await self._borrow(
                pool,
                timeout=timeout,
                min_remaining=min_remaining,
                env=env,
                cwd=cwd,
                limits=limits,
            )

        return RemoteLoan(borrow, self._leases.discard)

    async def _borrow(
        self,
        pool: str,
        *,
        timeout: float | None,
        min_remaining: float | None,
        env: Mapping[str, str | None] | None,
        cwd: str | None,
        limits: LimitChange | None,
    ) -> HeldLease:
        from sandpool.client.loan import HeldLease

        self._need_running()
        wanted = answers.body(
            LeaseRequest,
            timeout=answers.wait(timeout),
            min_remaining=min_remaining,
            env=env or {},
            cwd=cwd,
            limits=limits,
            keep_alive=self._keep_alive,
        )
        response = await self._transport.obtain(
            _pool(pool, "/lease"), json=wanted, timeout=timeout, take_back=self._give_back_unused
        )
        leased = answers.parse(Leased, response.content)
        lease = HeldLease(self._transport, self._runtime, self._clock, leased)
        self._leases.add(lease)
        return lease

    # What was made for a caller who never heard of it.

    async def _delete_unused(self, response: Answer) -> None:
        await self._delete(answers.parse(SandboxInfo, response.content).id)

    async def _delete_claimed(self, response: Answer) -> None:
        await self._delete(answers.parse(Claimed, response.content).sandbox.id)

    async def _delete_unused_pool(self, response: Answer) -> None:
        name = answers.parse(PoolInfo, response.content).name
        await self._transport.call("DELETE", _pool(name), params={"force": True})

    async def _give_back_unused(self, response: Answer) -> None:
        lease_id = answers.parse(Leased, response.content).lease_id
        await self._transport.call("DELETE", f"/v1/leases/{lease_id}")

    # How it calls.

    def _need_running(self) -> None:
        if not self._running:
            raise ManagerNotStarted("Manager not started")

    def _handle(self, info: SandboxInfo, remaining: float | None = None) -> RemoteSandbox:
        from sandpool.client.remote_sandbox import RemoteSandbox

        return RemoteSandbox(self._transport, info, remaining=remaining)

    async def _post(
        self, path: str, *, json: object = None, params: Params | None = None
    ) -> Answer:
        """Make a POST that may be repeated without doing anything twice."""
        return await self._transport.call(
            "POST", path, json=json, params=params, idempotency_key=new_token()
        )

    async def _execute(
        self, tool_name: str, parameters: dict[str, Any], timeout: float | None
    ) -> ToolResult:
        # Not repeated, and without a deadline here: the tool may run for longer than the wait.
        response = await self._transport.call(
            "POST",
            f"/v1/execute/{_tool(tool_name)}",
            json={"parameters": parameters, "timeout": answers.wait(timeout)},
        )
        return answers.parse(ToolResult, response.content)

    async def _delete(self, sandbox_id: str) -> None:
        try:
            await self._transport.call("DELETE", _path(sandbox_id))
        except SandboxNotFound:
            self._made.pop(sandbox_id, None)
            raise
        self._made.pop(sandbox_id, None)

    async def _delete_own(self, sandbox_id: str) -> None:
        try:
            await self._delete(sandbox_id)
        except SandboxNotFound:
            _log.debug("sandbox %s was gone already", sandbox_id)
        except SandpoolError as error:
            _log.warning("sandbox %s is left on the server: %s", sandbox_id, error)

    async def _end_lease(self, lease: HeldLease) -> None:
        await lease.give_back(spoilt=False)


def _path(sandbox_id: str, rest: str = "") -> str:
    """Return where a sandbox is; `SandboxNotFound` for what cannot be an id."""
    if not re.fullmatch(NAME_PATTERN, str(sandbox_id)):
        raise SandboxNotFound(f"Sandbox {sandbox_id} not found")
    return f"/v1/sandboxes/{sandbox_id}{rest}"


def _pool(name: str, rest: str = "") -> str:
    """Return where a pool is; `PoolNotFound` for what cannot be a name."""
    if not re.fullmatch(NAME_PATTERN, str(name)):
        raise PoolNotFound(f"there is no pool {name!r}")
    return f"/v1/pools/{name}{rest}"


def _tool(name: str) -> str:
    """Return a tool's name as a part of a path; `ToolNotFound` for what cannot be one."""
    from sandpool.client.transport import segment

    if not name or "/" in name:
        raise ToolNotFound(f"Tool {name} is not available")
    return segment(name)


def _fields(spec: PoolSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")
