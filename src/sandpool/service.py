"""`SandboxService`, which local and remote managers both implement, and the handles it gives out.

These are protocols: `manager` implements them in this process, and an HTTP client implements them
over a server.  Tools, dialects and the command line are written against them, so that where a
sandbox lives changes no line of theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from sandpool.models import (
    DEFAULT_MAX_OUTPUT,
    ContextResult,
    DirEntry,
    ExecResult,
    ImageInfo,
    LimitChange,
    PoolInfo,
    PoolSpec,
    SandboxConfig,
    SandboxInfo,
    SandboxReference,
    SandboxStatus,
    SandboxType,
    Stream,
    ToolResult,
)

OnOutput = Callable[[Stream, bytes], Awaitable[None] | None]
"""Called with each piece of output as it comes; what it returns is awaited if it can be."""


class Process(Protocol):
    """One run in progress.  Leaving its `async with` block kills what has not ended."""

    pid: int | None
    """The process id inside the sandbox, once it has started."""

    async def __aenter__(self) -> Process:
        """Return itself."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Cancel the run if it has not ended."""
        ...

    def __aiter__(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Iterate over the output as it comes: pairs of `"stdout"` or `"stderr"`, and bytes."""
        ...

    async def send(self, data: bytes) -> None:
        """Write to standard input; waits while the program does not read."""
        ...

    async def send_eof(self) -> None:
        """Close standard input."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to the run's process group."""
        ...

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its size; `Unsupported` for anything else."""
        ...

    async def wait(self) -> ExecResult:
        """Return the result; stdout and stderr hold what was not iterated over."""
        ...


class ByteStream(Protocol):
    """A connection to a port inside the sandbox."""

    async def receive(self) -> bytes:
        """Return the next bytes; `b""` when the other side has ended."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    async def send_eof(self) -> None:
        """End our side; the other may go on."""
        ...

    async def aclose(self) -> None:
        """Close both sides."""
        ...


class Files(Protocol):
    """The files of one sandbox.  Relative paths start at its working directory.

    Raises `FileMissing` or `FileFailed` for what the sandbox's own kernel refuses.
    """

    async def read(self, path: str, *, max_size: int | None = None) -> bytes:
        """Return a file's bytes; `FileTooLarge` past `max_size` bytes."""
        ...

    async def read_text(self, path: str, *, encoding: str = "utf-8") -> str:
        """Return a file's text."""
        ...

    def stream(self, path: str) -> AsyncIterator[bytes]:
        """Iterate over a file's bytes in pieces."""
        ...

    async def write(
        self, path: str, data: bytes | str | AsyncIterator[bytes], *, mode: int | None = None
    ) -> int:
        """Write a file, making its parents, whole or not at all; return the bytes written."""
        ...

    async def append(self, path: str, data: bytes | str) -> int:
        """Add to a file, making it if it is absent; return the bytes written."""
        ...

    async def list(self, path: str = ".", *, depth: int = 1) -> list[DirEntry]:
        """List a directory, sorted by path."""
        ...

    async def stat(self, path: str) -> DirEntry:
        """Describe one path, following links."""
        ...

    async def exists(self, path: str) -> bool:
        """Whether the path is there."""
        ...

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents; one that is there is fine."""
        ...

    async def move(self, source: str, target: str) -> None:
        """Rename; an existing file at the target is replaced."""
        ...

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link, or with `recursive` a directory tree."""
        ...


class Context(Protocol):
    """A stateful interpreter in a sandbox: several cells, one namespace."""

    id: str

    async def run(
        self, code: str, *, timeout: float | None = None, on_output: OnOutput | None = None
    ) -> ContextResult:
        """Run one cell.  After a time-out that interrupting did not end, the context is gone."""
        ...

    async def aclose(self) -> None:
        """End it; idempotent."""
        ...


class Contexts(Protocol):
    """The stateful interpreters of one sandbox."""

    async def open(
        self, *, env: Mapping[str, str | None] | None = None, cwd: str | None = None
    ) -> Context:
        """Start one."""
        ...

    def get(self, context_id: str) -> Context:
        """Return one by its id; that it is gone shows when it is used, by `ContextNotFound`."""
        ...

    async def list(self) -> list[str]:
        """Return the ids of the living ones."""
        ...


class Sandbox(Protocol):
    """One sandbox, as a caller holds it.

    Every method raises `LeaseOver` once the lease has ended, and `SandboxDied` once the sandbox
    has.  A cancelled call kills what it started.
    """

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def config(self) -> SandboxConfig:
        """What it was made from."""
        ...

    @property
    def status(self) -> SandboxStatus:
        """Its status at this moment."""
        ...

    @property
    def sandbox_type(self) -> SandboxType:
        """What it is made of."""
        ...

    @property
    def remaining(self) -> float | None:
        """Seconds until it ends by itself; None: it has no end of its own."""
        ...

    @property
    def expires_at(self) -> float | None:
        """When it ends by itself, in seconds since the epoch; None: it has no end of its own."""
        ...

    @property
    def files(self) -> Files:
        """Its files."""
        ...

    @property
    def contexts(self) -> Contexts:
        """Its stateful interpreters."""
        ...

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
        """Run Python code as `python3 script.py` would, in a fork of the warm interpreter.

        `argv` is `sys.argv[1:]`; `timeout` is in seconds; `max_output` bounds stdout and stderr,
        in bytes each.
        """
        ...

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
        ...

    async def start_process(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
    ) -> Process:
        """Start a command with its standard input open, and return its handle."""
        ...

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
        ...

    async def dial(self, port: int) -> ByteStream:
        """Connect to a port on the sandbox's loopback."""
        ...

    async def url(self, port: int, *, private: bool = False) -> str:
        """Return an address that any HTTP or WebSocket client can call, until the lease ends.

        A `private` one is for those alone who have it: it carries a token, and nothing opens the
        port without.  The same call returns the same address.  Raises `BadAddress` for what is no
        port; whether anything listens there is not looked at.
        """
        ...

    async def ping(self) -> None:
        """Return when the guest has answered."""
        ...


class SandboxService(Protocol):
    """What a manager does, wherever its sandboxes live."""

    async def start(self) -> None:
        """Begin; no effect on a running one."""
        ...

    async def stop(self) -> None:
        """Delete what this manager made, and end; no effect on a stopped one."""
        ...

    # Sandboxes, by id (the enclave interface).

    async def create_sandbox(
        self,
        sandbox_type: SandboxType,
        config: SandboxConfig | dict[str, Any] | None = None,
        sandbox_id: str | None = None,
    ) -> str:
        """Make and start a sandbox and return its id.

        Raises `UnknownSandboxType`, `InvalidSpec`, `SandboxExists`, `NoCapacity`, `CreateFailed`,
        `BackendUnavailable`.
        """
        ...

    async def get_sandbox_info(self, sandbox_id: str) -> SandboxInfo | None:
        """Describe a sandbox; None if there is none with this id."""
        ...

    async def list_sandboxes(
        self, status_filter: SandboxStatus | None = None, *, status: SandboxStatus | None = None
    ) -> list[SandboxInfo]:
        """Describe all sandboxes, or those with one status (`status` is the same filter)."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> bool:
        """End its processes and keep its record; False if there is none."""
        ...

    async def delete_sandbox(self, sandbox_id: str) -> bool:
        """End it and forget it; False if there is none."""
        ...

    async def execute_tool(
        self, sandbox_id: str, tool_name: str, parameters: dict[str, Any]
    ) -> ToolResult:
        """Run one tool in one sandbox."""
        ...

    async def get_sandbox_tools(self, sandbox_id: str) -> dict[str, Any]:
        """Return the function schema of each of its tools."""
        ...

    async def get_sandbox_logs(self, sandbox_id: str) -> str:
        """Return the last of what the entrypoint of its pool has said in it."""
        ...

    async def put_archive(self, sandbox_id: str, target_dir: str, data: bytes) -> bool:
        """Unpack a tar archive below `target_dir`."""
        ...

    async def put_dir(self, sandbox_id: str, source_dir: str | Path, target_dir: str) -> bool:
        """Copy the contents of a local directory to `target_dir`, links left out."""
        ...

    async def get_stats(self) -> dict[str, Any]:
        """Return counts, for people and monitors."""
        ...

    async def cleanup_all_sandboxes(self) -> None:
        """Delete everything that this manager owns, pools included."""
        ...

    async def initialize_pool(
        self,
        pool_size: int | None = None,
        sandbox_type: SandboxType | None = None,
        config: SandboxConfig | dict[str, Any] | None = None,
    ) -> list[str]:
        """Warm a pool for `execute_tool_in_pool` and return its members' ids."""
        ...

    async def execute_tool_in_pool(
        self, tool_name: str, parameters: dict[str, Any], timeout: float | None = None
    ) -> ToolResult:
        """Borrow a sandbox, run one tool in it, and give it back."""
        ...

    # Pools, by name.

    async def create_pool(self, spec: PoolSpec) -> PoolInfo:
        """Make a pool and start to fill it; `PoolExists`, `InvalidSpec`, `BackendUnavailable`."""
        ...

    async def list_pools(self) -> list[PoolInfo]:
        """Describe all pools."""
        ...

    async def get_pool(self, name: str) -> PoolInfo:
        """Describe one pool; `PoolNotFound`."""
        ...

    async def list_images(self) -> list[ImageInfo]:
        """List the images that have a name, that its pools use, or that it is getting, by name."""
        ...

    async def update_pool(self, name: str, spec: PoolSpec) -> PoolInfo:
        """Give a pool a new definition.

        A change of what to make replaces its idle sandboxes; a change of how many only resizes it.
        Leased sandboxes keep what they were made from.
        """
        ...

    async def delete_pool(self, name: str, *, force: bool = False) -> None:
        """Remove a pool; `PoolInUse` while it has leases, unless `force` ends them."""
        ...

    async def check_pool(self, name: str, *, check_health: bool = False) -> list[SandboxReference]:
        """Describe a pool's ready sandboxes, oldest first, without taking any.

        With `check_health` each is looked at as the pool's definition says; `PoolNotFound`.
        """
        ...

    async def wait_pool_warm(self, name: str, count: int | None = None) -> None:
        """Wait until `count` sandboxes (by default all of `warm`) are ready; `PoolDegraded`."""
        ...

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
    ) -> Sandbox:
        """Take a sandbox for good: it is the caller's until deleted or expired.

        `limits` are this tenant's, where they are not to be the pool's: lower ones, or higher ones
        up to the definition's `max_limits` (`InvalidSpec`).  `Unsupported` where this host or
        backend has nothing that could hold a warm sandbox to another limit.

        It has at least `min_remaining` seconds of its life left, and where `check_health` or else
        the pool's definition says so, it has just been found healthy.  Raises `AcquireTimeout`,
        `PoolDegraded` with the cause if there is nothing to wait for, `PoolNotFound`.
        """
        ...

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
        """Borrow a sandbox for the length of an `async with` block."""
        ...
