"""What makes sandboxes: the `Backend` and `Box` protocols, and the values they exchange.

A backend makes boxes; a box is one running sandbox as the backend sees it: bytes in, bytes out, no
tools, no lease, no pool.  `manager` adapts a backend to the pool's factory and wraps boxes for
callers.  Every implementation passes `tests/contract`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandpool.errors import SandboxDied
from sandpool.guest import frames
from sandpool.models import ContextResult, DirEntry, ExecResult, ImagePull, Network, Stream
from sandpool.service import ByteStream, Process

LONGEST_HEAD = frames.LONGEST_HEAD
"""Bytes of an answer that `Box.probe` returns at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one sandbox may use at most.  `None` means the backend's default, never "unlimited"."""

    memory_mb: int = 512
    """Memory of all its processes together, in MiB, without swap."""
    cpus: float = 1.0
    """Processor time per second of wall time, where the host can hold it."""
    pids: int = 128
    """Processes and threads at one time, the guest included."""
    disk_mb: int = 256
    """Bytes in all writable places together, in MiB."""
    inodes: int = 65_536
    """Files and directories in all writable places together."""
    open_files: int = 1_024
    """Descriptors per process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory or file of the host that a container sees."""

    source: str
    target: str
    is_writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port of a container that is reached at an address of the host."""

    port: str
    """The port and its protocol, as in `8080/tcp`."""
    host: str = "127.0.0.1"
    host_port: int | None = None
    """None: one that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What only a container can be asked for; each default is the safest value."""

    command: tuple[str, ...] = ()
    """Runs in the background from the sandbox's start."""
    network: str | None = None
    """The engine's network that it joins; None: loopback only."""
    extra_hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Addresses by the host names that stand for them inside."""
    ports: tuple[PublishedPort, ...] = ()
    volumes: tuple[Volume, ...] = ()
    platform: str | None = None
    """Operating system and architecture, as in `linux/arm64`; None: the engine's."""
    privileged: bool = False
    """Root with all rights, as good as on the host itself."""
    is_kept: bool = False
    """Whether the container stays, stopped, when the sandbox has ended."""
    pull_interval: float | None = None
    """Seconds between two lines of the log about the progress of a pull; None: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """What to make.  Two equal specs may share a template."""

    image: str = "host"
    """`host`, the absolute path of a root directory, or an image's name."""
    preload: tuple[str, ...] = ()
    """Modules that the template imports, so that every sandbox starts with them imported."""
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Added to the base environment of everything that runs in the sandbox."""
    working_dir: str = "/sandbox"
    """Absolute; made if it is absent; where runs start."""
    limits: Limits = field(default_factory=Limits)
    network: Network | None = None
    """What it may connect to; None: it has a loopback of its own and nothing else."""
    container: ContainerSpec | None = None
    """None: a container with the defaults, or none at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a warm sandbox is given at hand-over."""

    epoch: int
    """Fences earlier leases of the same sandbox: requests with an older one are refused."""
    env: Mapping[str, str | None] = field(default_factory=dict[str, str | None], repr=False)
    """Variables to set, or to remove where the value is None."""
    cwd: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run one program."""

    argv: tuple[str, ...] = ()
    """For code: `sys.argv[1:]`.  For a command: the whole command line, never through a shell."""
    env: Mapping[str, str | None] = field(default_factory=dict[str, str | None], repr=False)
    cwd: str | None = None
    stdin: bytes | None = b""
    """The whole of standard input; `None` keeps it open for `Process.send`."""
    timeout: float | None = None
    """Seconds until the run's whole tree is killed."""
    max_output: int | None = 1_048_576
    """Bytes of stdout and of stderr that are kept; the rest is read and thrown away."""


class Box(Protocol):
    """One running sandbox.

    Every method may raise `SandboxDied`; after that all of them do, and only `destroy` is useful.
    A cancelled call has no effect left in the sandbox: what it started is killed.
    """

    id: str
    spec: BoxSpec

    @property
    def died(self) -> SandboxDied | None:
        """Why it is dead, or None while it lives."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """Facts for people: backend, isolation, which mechanism holds each limit.  No secrets."""
        ...

    def on_death(self, callback: Callable[[SandboxDied], None]) -> None:
        """Call `callback` once, on the event loop, when it dies other than by `destroy`."""
        ...

    async def ping(self) -> None:
        """Return when the guest has answered.  The pool's health check."""
        ...

    async def bind(self, binding: Binding) -> None:
        """Late binding at hand-over; requests after it carry its epoch.

        Every hand-over waits for it: it waits for no more than a bounded time, and for nothing at
        all where it can.
        """
        ...

    async def run_code(self, code: str, options: RunOptions) -> ExecResult:
        """Run Python code to its end in a fork of the warm interpreter."""
        ...

    async def exec(self, options: RunOptions) -> ExecResult:
        """Run a command to its end."""
        ...

    async def start_code(self, code: str, options: RunOptions) -> Process:
        """Start Python code and return its handle."""
        ...

    async def start(self, options: RunOptions) -> Process:
        """Start a command and return its handle."""
        ...

    async def open_pty(self, options: RunOptions, *, rows: int, cols: int) -> Process:
        """Start a command on a terminal of its own; all output comes as stdout."""
        ...

    async def dial(self, port: int) -> ByteStream:
        """Connect to a port on the sandbox's loopback; `DialFailed` if nothing listens.

        To close what is returned waits for nothing: as with any connection, the other side hears of
        it later.
        """
        ...

    async def probe(self, port: int, question: str) -> bytes:
        """Connect, ask, and return the head of the answer, up to the empty line at its end.

        That is missing in one that is `LONGEST_HEAD` bytes long, or whose server has closed
        the connection.  Interim heads of HTTP/1 come with what follows them.  An answer that is no
        HTTP is returned as far as it has come.  `DialFailed` if nothing listens.
        """
        ...

    async def open_context(self, *, env: Mapping[str, str | None], cwd: str | None) -> str:
        """Start a stateful interpreter and return its id."""
        ...

    async def run_in_context(
        self,
        context: str,
        code: str,
        *,
        timeout: float | None,
        max_output: int | None,
        on_output: Callable[[Stream, bytes], Awaitable[None] | None] | None = None,
    ) -> ContextResult:
        """Run one cell; `ContextNotFound` if the context is gone."""
        ...

    async def close_context(self, context: str) -> None:
        """End a context and everything that it started."""
        ...

    async def list_contexts(self) -> list[str]:
        """Return the ids of the living contexts."""
        ...

    def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a regular file; `FileMissing`, `FileFailed`."""
        ...

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        mode: int | None = None,
        append: bool = False,
        parents: bool = True,
    ) -> int:
        """Write a file, whole or not at all (unless `append`), and return the bytes written."""
        ...

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        """List a directory, `depth` levels deep, sorted by path."""
        ...

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        """Describe one path."""
        ...

    async def make_dir(self, path: str, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a directory."""
        ...

    async def move_file(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Rename, across directories and file systems."""
        ...

    async def remove_file(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False
    ) -> None:
        """Remove a file, a link or (with `recursive`) a tree; never follows links."""
        ...

    async def reset(self) -> None:
        """Make it as it was at its start, under its id, and prove it.

        Raises `Unsupported` where nothing could prove it; after that it is as it was.  After any
        other error only `destroy` is useful.  Called by the pool between two leases, when nothing
        of the last one is in progress; callbacks of `on_death` are forgotten.
        """
        ...

    async def set_limits(self, limits: Limits) -> None:
        """Hold it to other limits from now on, without touching what runs in it.

        Rlimits are those of what is started from now on.  It cannot be reset any more.

        Raises `Unsupported`, naming the first limit that cannot be changed here, and `InvalidSpec`
        for one below what it already uses; on either of them the old limits hold.
        """
        ...

    async def kill_all(self) -> int:
        """Kill every process but the guest and return how many there were."""
        ...

    async def destroy(self) -> None:
        """End the sandbox and return once none of its processes is left; idempotent.

        Raises `DestroyFailed` when the kernel does not let go of it within a bound.
        """
        ...


class Backend(Protocol):
    """What makes boxes.  One instance serves many pools; it keeps templates for their specs."""

    name: str

    async def prepare(self, spec: BoxSpec) -> None:
        """Make what is slow and shared: the template.  Called before a pool's first `create`.

        Raises `BackendUnavailable` (this host cannot), `ImageNotFound`, `InvalidSpec` (a limit or a
        preload that cannot be); on any of them nothing is left behind.
        """
        ...

    def pulls(self) -> Mapping[str, ImagePull]:
        """Return how far the images are that `prepare` is getting, by the names of the specs."""
        ...

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> Box:
        """Make one sandbox, healthy and warm; calls `prepare` by itself if nobody has.

        Where making it and starting it are two steps, `on_made` is called between them.  Raises
        what `prepare` raises, or `CreateFailed`.  Cancelled or failed, it leaves nothing.
        """
        ...

    async def aclose(self) -> None:
        """Destroy every box and template; idempotent, bounded."""
        ...
