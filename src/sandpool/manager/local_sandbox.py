"""`LocalSandbox`: one box of a backend, with tools.

It has two faces: `service.Sandbox` (run_code, exec, files, ...) and the enclave interface that it
inherits from `Sandbox`.

The object that is made first, the root, owns the box.  Each lease gets a handle of its own made by
`lend`: it shares everything with the root but its `Hold`, which ends with the lease.

    initializing ──► running ⇄ idle ⇄ busy ──► stopping ──► stopped
          └────────────┴────────┴──────┴─────► error
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from sandpool.backends.base import Backend, Box, BoxSpec
from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import (
    CreateFailed,
    LeaseOver,
    SandboxDied,
    SandboxNotActive,
    SandpoolError,
    Unsupported,
)
from sandpool.manager import archive, recipe
from sandpool.manager.backends import default_backend
from sandpool.manager.doors import Doors
from sandpool.manager.entrypoint import Entrypoint
from sandpool.manager.hold import BoxContexts, BoxFiles, Hold, command_line, follow, run_options
from sandpool.manager.runtime import Runtime
from sandpool.manager.sandbox import ACTIVE, Sandbox
from sandpool.models import (
    DEFAULT_MAX_OUTPUT,
    CommandResult,
    ExecResult,
    ExecutionStatus,
    SandboxConfig,
    SandboxStatus,
    SandboxType,
    ToolResult,
)
from sandpool.proxy.address import check_port
from sandpool.proxy.gate import Gate
from sandpool.service import ByteStream, OnOutput, Process


@dataclass(slots=True)
class _State:
    """What the root and its handles share."""

    status: SandboxStatus
    since: float
    """When the status last changed, on the monotonic clock."""
    updated_at: datetime
    box: Box | None = None
    is_made: bool = False
    """Whether all but the start of its box is done."""
    calls: int = 0
    """Calls in progress."""
    has_tools: bool = False
    entrypoint: Entrypoint | None = None
    """The command that serves in it."""
    own_backend: Backend | None = field(default=None, repr=False)
    """The backend of a sandbox that was made without a manager."""


class LocalSandbox(Sandbox):
    """One sandbox in this process's care."""

    def __init__(
        self,
        config: SandboxConfig,
        sandbox_id: str | None = None,
        *,
        backend: Backend | None = None,
        make_backend: Callable[[], Backend] = default_backend,
        spec: BoxSpec | None = None,
        images: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        sandbox_type: SandboxType = SandboxType.NATIVE,
        runtime: Runtime | None = None,
    ) -> None:
        """Describe it; nothing runs before `start`.

        Args:
            config: What it is made from.
            sandbox_id: Its id; by default a new one.
            backend: What makes its box; by default a backend of its own.
            make_backend: What makes that one; by default it is a native one.
            spec: The box, where the caller has worked it out from `config` already.
            images: What `config`'s image names stand for.
            clock: What time is.
            sandbox_type: What it is made of.
            runtime: What keeps the doors to its ports open; by default one of its own.
        """
        super().__init__(config, sandbox_id)
        self._clock = clock if clock is not None else MonotonicClock()
        self._type = sandbox_type
        self._backend = backend
        self._make_backend = make_backend
        self._spec = (
            spec if spec is not None else recipe.box_spec(config, images or {}, sandbox_type)
        )
        self.created_at = self._clock.utc()
        self._state = _State(
            SandboxStatus.INITIALIZING, self._clock.now(), updated_at=self.created_at
        )
        self._hold: Hold | None = None
        self._withheld: str | None = None
        self._doors = Doors(runtime)

    # What it is.

    @property
    def sandbox_type(self) -> SandboxType:
        """What it is made of."""
        return self._type

    @property
    def status(self) -> SandboxStatus:
        """Its status; a sandbox that has died is in `error`, whatever was noted last."""
        state = self._state
        if state.status in ACTIVE and state.box is not None and state.box.died is not None:
            return SandboxStatus.ERROR
        return state.status

    @status.setter
    def status(self, status: SandboxStatus) -> None:
        # The base class sets it before there is a state to keep it in.
        if hasattr(self, "_state"):
            self.update_status(status)

    @property
    def updated_at(self) -> datetime:
        """When its status last changed."""
        return self._state.updated_at

    @updated_at.setter
    def updated_at(self, when: datetime) -> None:
        if hasattr(self, "_state"):
            self._state.updated_at = when

    @property
    def since(self) -> float:
        """When its status last changed, on the monotonic clock."""
        return self._state.since

    @property
    def is_in_use(self) -> bool:
        """Whether a call is in progress, through whichever handle."""
        return self._state.calls > 0

    @property
    def spec(self) -> BoxSpec:
        """What its box is made from."""
        return self._spec

    @property
    def box(self) -> Box | None:
        """The box, once there is one."""
        return self._state.box

    @property
    def is_made(self) -> bool:
        """Whether its box has begun to start, or has started by now."""
        return self._state.is_made

    @property
    def remaining(self) -> float | None:
        """Seconds until its lease ends by itself; None: it does not."""
        ends_at = None if self._hold is None else self._hold.ends_at
        return None if ends_at is None else max(0.0, ends_at - self._clock.now())

    @property
    def expires_at(self) -> float | None:
        """When its lease ends by itself, in seconds since the epoch; None: it does not."""
        remaining = self.remaining
        return None if remaining is None else self._clock.utc().timestamp() + remaining

    @property
    def entrypoint(self) -> Entrypoint | None:
        """The command that serves in it, if its pool's definition names one."""
        return self._state.entrypoint

    @entrypoint.setter
    def entrypoint(self, entrypoint: Entrypoint) -> None:
        self._state.entrypoint = entrypoint

    @property
    def facts(self) -> Mapping[str, Any]:
        """What there is to tell people of its box."""
        return {} if self._state.box is None else self._state.box.info

    def farewell(self) -> SandpoolError | None:
        """Return what calls raise because it has ended for its holder; None: it has not."""
        if self._hold is not None and self._hold.over is not None:
            return self._hold.over
        return None if self._state.box is None else self._state.box.died

    def update_status(self, status: SandboxStatus) -> None:
        """Note a change of status, and when it was."""
        self._state.status = status
        self._state.since = self._clock.now()
        self._state.updated_at = self._clock.utc()

    # Its life.

    async def start(self) -> None:
        """Make its box, unless it has one that lives."""
        if self.status in ACTIVE:
            return
        self.update_status(SandboxStatus.INITIALIZING)
        self._state.is_made = False
        try:
            await self.initialize_tools()
            backend = self._backend
            if backend is None:
                backend = self._state.own_backend = self._make_backend()
            box = await backend.create(self._spec, box_id=self.id, on_made=self._note_made)
            self.adopt(box)
        except BaseException as error:
            # Cancel: the backend has left no box behind; what is left is ours.
            self.metadata["error"] = str(error) or type(error).__name__
            self.update_status(SandboxStatus.ERROR)
            await self._close_own_backend()
            if isinstance(error, SandpoolError) or not isinstance(error, Exception):
                raise
            raise CreateFailed(f"sandbox {self.id} could not be started: {error}") from error

    def adopt(self, box: Box) -> None:
        """Take a box that has just been made; the sandbox is running."""
        self._state.box = box
        self._note_made()
        self._hold = Hold(box)
        self._hold.withhold(self._withheld)
        box.on_death(self._note_death)
        self.update_status(SandboxStatus.RUNNING)

    async def renew(self) -> None:
        """Give it an inside without any past; same id."""
        box = self._state.box
        if box is not None:
            if self._hold is not None:
                self._hold.end()
            await self._doors.aclose()
            try:
                await box.reset()
            except Unsupported:
                await super().renew()
            else:
                self.adopt(box)
        else:
            await super().renew()

    async def stop(self) -> None:
        """Destroy its box; it can be started again."""
        box = self._state.box
        if box is not None:
            self.update_status(SandboxStatus.STOPPING)
            if self._hold is not None:
                self._hold.close_gate(LeaseOver(f"sandbox {self.id} has ended"))
            try:
                await box.destroy()
            except BaseException as error:
                self.metadata["error"] = str(error)
                self.update_status(SandboxStatus.ERROR)
                raise
            self._state.box = None
        self._hold = None
        await self._doors.aclose()
        await self._close_own_backend()
        if self._state.status is not SandboxStatus.STOPPED:
            self.update_status(SandboxStatus.STOPPED)

    async def cleanup(self) -> None:
        """Make sure that nothing is left."""
        if self._state.box is not None:
            await self.stop()

    async def check(self) -> None:
        """Return when its guest has answered."""
        await super().check()
        await self.need_box().ping()

    def need_box(self) -> Box:
        """Return its box, whoever holds it; `SandboxNotActive` while it has none."""
        if self._state.box is None:
            raise self._not_active()
        return self._state.box

    async def _close_own_backend(self) -> None:
        backend, self._state.own_backend = self._state.own_backend, None
        if backend is not None:
            with anyio.CancelScope(shield=True):  # bounded by the backend
                await backend.aclose()

    def _note_made(self) -> None:
        self._state.is_made = True

    def _note_death(self, error: SandpoolError) -> None:
        self.metadata["error"] = str(error)
        self.update_status(SandboxStatus.ERROR)

    # Leases.

    def lend(self, hold: Hold) -> LocalSandbox:
        """Return a handle that works through `hold`."""
        # What `copy.copy` does, but for the questions that it asks first.
        handle = object.__new__(type(self))
        vars(handle).update(vars(self))
        handle.use(hold)
        return handle

    def use(self, hold: Hold) -> None:
        """Work through `hold` from now on; called by `lend` on the new handle."""
        self._hold = hold

    def show_limits(self, limits: Mapping[str, int | float]) -> None:
        """Describe the sandbox with limits that its tenant alone has."""
        merged = {**self.config.resource_limits, **limits}
        self.config = self.config.model_copy(update={"resource_limits": merged})

    def withhold(self, reason: str | None) -> None:
        """Refuse calls on this object with `SandboxLeased`, until called again with None.

        Handles made by `lend` are not concerned.
        """
        self._withheld = reason
        if self._hold is not None:
            self._hold.withhold(reason)

    @contextmanager
    def _using(self) -> Generator[Box]:
        hold = self._need_hold()
        box = hold.box
        self._state.calls += 1
        try:
            yield box
        except SandboxDied:
            # A box that was destroyed because the lease ended says less than the lease does.
            hold.check()
            raise
        finally:
            self._state.calls -= 1

    def _need_hold(self) -> Hold:
        if self._hold is None:
            raise self._not_active()
        return self._hold

    def _not_active(self) -> SandboxNotActive:
        return SandboxNotActive(f"Sandbox {self.id} is not active (status: {self.status.value})")

    # Running things.

    @property
    def files(self) -> BoxFiles:
        """Its files."""
        return BoxFiles(self._need_hold())

    @property
    def contexts(self) -> BoxContexts:
        """Its stateful interpreters."""
        return BoxContexts(self._need_hold())

    async def run_code(
        self,
        code: str,
        *,
        argv: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        timeout: float | None = None,
        max_output: int | None = DEFAULT_MAX_OUTPUT,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run Python code as `python3 script.py` would, in a fork of the warm interpreter."""
        options = run_options(
            argv=argv, env=env, cwd=cwd, stdin=stdin, timeout=timeout, max_output=max_output
        )
        with self._using() as box:
            if on_output is None:
                return await box.run_code(code, options)
            return await follow(await box.start_code(code, options), on_output)

    async def exec(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        timeout: float | None = None,
        max_output: int | None = DEFAULT_MAX_OUTPUT,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run a command to its end: a sequence never through a shell, a string always."""
        options = run_options(
            argv=command_line(command),
            env=env,
            cwd=cwd,
            stdin=stdin,
            timeout=timeout,
            max_output=max_output,
        )
        with self._using() as box:
            if on_output is None:
                return await box.exec(options)
            return await follow(await box.start(options), on_output)

    async def start_process(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
    ) -> Process:
        """Start a command with its standard input open, and return its handle."""
        options = run_options(
            argv=command_line(command), env=env, cwd=cwd, stdin=None, timeout=timeout
        )
        with self._using() as box:
            return await box.start(options)

    async def open_pty(
        self,
        command: Sequence[str] | str = ("/bin/sh",),
        *,
        rows: int = 24,
        cols: int = 80,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
    ) -> Process:
        """Start a command on a terminal of its own."""
        options = run_options(argv=command_line(command), env=env, cwd=cwd, stdin=None)
        with self._using() as box:
            return await box.open_pty(options, rows=rows, cols=cols)

    async def dial(self, port: int) -> ByteStream:
        """Connect to a port on the sandbox's loopback."""
        with self._using() as box:
            return await box.dial(check_port(port))

    async def url(self, port: int, *, private: bool = False) -> str:
        """Return the address of a port: a loopback port of this machine, until the lease ends.

        Whoever can reach this machine's loopback can use it.  A `private` one asks each connection
        for its token: as the password in the URL, or in the header `X-Sandpool-Token`.
        """
        return await self._doors.open(self.gate(), check_port(port), is_private=private)

    def gate(self) -> Gate:
        """Return the way in for those who have an address; ends with the lease."""
        return self._need_hold().gate()

    async def ping(self) -> None:
        """Return when the guest has answered."""
        with self._using() as box:
            await box.ping()

    # The enclave interface.

    async def initialize_tools(self) -> None:
        """Build the tools of `config.tools_config`, once."""
        if not self._state.has_tools:
            await super().initialize_tools()
            self._state.has_tools = True

    async def execute_tool(self, tool_name: str, parameters: Mapping[str, Any]) -> ToolResult:
        """Run one tool."""
        await self.initialize_tools()
        tool = self.need_tool(tool_name)
        with self._using():
            return await tool.run(self, parameters)

    async def execute_command(
        self, command: str | list[str], timeout: int | None = None, stream: bool = True
    ) -> CommandResult:
        """Run a command: a string by a shell, a list as it is; timeout None or 0: no limit.

        `stream` changes nothing here: the result is the same either way.
        """
        result = await self.exec(command, timeout=timeout or None)
        return _command_result(command, result, timeout)

    async def put_archive(self, target_dir: str, data: bytes) -> bool:
        """Unpack a tar archive below `target_dir`, which is made if it is absent."""
        archive.check_target_dir(target_dir)
        with self._using() as box:
            await archive.unpack(box, target_dir, data)
        return True

    async def put_dir(self, source_dir: str | Path, target_dir: str) -> bool:
        """Copy the contents of a directory of this machine to `target_dir`, links left out."""
        archive.check_target_dir(target_dir)
        with self._using() as box:
            await archive.copy_dir(box, source_dir, target_dir)
        return True

    async def put_file(self, file_path: str, content: str, encoding: str = "utf-8") -> bool:
        """Write a text file at an absolute path."""
        archive.split_file_path(file_path)
        await self.files.write(file_path, content.encode(encoding))
        return True

    async def get_archive(self, path: str) -> bytes:
        """Return a tar archive of a file or a tree."""
        with self._using() as box:
            return await archive.pack(box, path)

    async def get_file(self, path: str) -> bytes:
        """Return a file's bytes."""
        return await self.files.read(path)

    async def get_execution_context(self) -> Box:
        """Return the box."""
        return self._need_hold().box


def _command_result(
    command: str | list[str], result: ExecResult, timeout: float | None
) -> CommandResult:
    if result.timed_out:
        return CommandResult(
            command=command,
            status=ExecutionStatus.TIMEOUT,
            exit_code=-1,
            stdout=result.stdout,
            stderr=result.stderr or f"Command timed out after {timeout} seconds",
            execution_time=result.duration,
        )
    return CommandResult(
        command=command,
        status=ExecutionStatus.SUCCESS if result.exit_code == 0 else ExecutionStatus.ERROR,
        exit_code=result.exit_code,
        stdout=result.stdout,
        stderr=result.stderr,
        execution_time=result.duration,
    )
