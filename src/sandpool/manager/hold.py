"""The right to use one box, for as long as it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import (
    ContextNotFound,
    FileTooLarge,
    InvalidSpec,
    LeaseOver,
    SandboxLeased,
    SandpoolError,
)
from sandpool.models import DEFAULT_MAX_OUTPUT, ContextResult, DirEntry, ExecResult, Stream
from sandpool.proxy.gate import Gate
from sandpool.service import ByteStream, OnOutput, Process

_SHELL = "/bin/sh"


class Hold:
    """Gives out the box until it is told that the right has ended.

    Each lease has a hold of its own on the same box, so that a handle kept beyond its lease cannot
    reach the next tenant.
    """

    def __init__(self, box: Box, ends_at: Callable[[], float | None] = lambda: None) -> None:
        """Begin; `ends_at` tells when, on the monotonic clock, the right ends by itself."""
        self._box = box
        self._ends_at = ends_at
        self._over: SandpoolError | None = None
        self._withheld: str | None = None
        self._gate: Gate | None = None

    @property
    def ends_at(self) -> float | None:
        """When it ends by itself, on the monotonic clock; None: never."""
        return self._ends_at()

    @property
    def is_over(self) -> bool:
        """Whether the right has ended."""
        return self._over is not None

    @property
    def over(self) -> SandpoolError | None:
        """What the right ended with; None: it has not."""
        return self._over

    @property
    def box(self) -> Box:
        """The box; raises what the right ended with, `SandboxLeased`, or `SandboxDied`."""
        self.check()
        if self._withheld is not None:
            raise SandboxLeased(self._withheld)
        if (died := self._box.died) is not None:
            raise died
        return self._box

    def check(self) -> None:
        """Raise what the right ended with, if it has."""
        if self._over is not None:
            raise self._over.with_traceback(None)

    def withhold(self, reason: str | None) -> None:
        """Refuse with `SandboxLeased` until called again with None."""
        self._withheld = reason

    def end(self, error: SandpoolError | None = None) -> None:
        """End the right, and all that came in by an address; the first reason stays."""
        if self._over is None:
            self._over = error or LeaseOver(f"the lease of sandbox {self._box.id} is over")
            self.close_gate(self._over)

    def gate(self) -> Gate:
        """Return the way in for those who have its address; raises as `box` does."""
        box = self.box
        if self._gate is None:
            self._gate = Gate(box.id, self._dial)
        return self._gate

    def close_gate(self, reason: SandpoolError) -> None:
        """Cut what came in by an address, because of `reason`."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.close(reason)

    async def _dial(self, port: int) -> ByteStream:
        return await self.box.dial(port)


class BoxFiles:
    """The files of a box; implements `service.Files`."""

    def __init__(self, hold: Hold) -> None:
        """Work through this hold."""
        self._hold = hold

    async def read(self, path: str, *, max_size: int | None = None) -> bytes:
        """Return a file's bytes."""
        content = bytearray()
        # One byte more than allowed is asked for: that is how too much is noticed.
        length = None if max_size is None else max_size + 1
        async for piece in self._hold.box.read_file(path, length=length):
            content += piece
            if max_size is not None and len(content) > max_size:
                raise FileTooLarge(f"{path} has more than {max_size} bytes")
        return bytes(content)

    async def read_text(self, path: str, *, encoding: str = "utf-8") -> str:
        """Return a file's text."""
        return (await self.read(path)).decode(encoding)

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Iterate over a file's bytes in pieces."""
        async for piece in self._hold.box.read_file(path):
            yield piece

    async def write(
        self, path: str, data: bytes | str | AsyncIterator[bytes], *, mode: int | None = None
    ) -> int:
        """Write a file, making its parents, whole or not at all."""
        content = data.encode() if isinstance(data, str) else data
        return await self._hold.box.write_file(path, content, mode=mode)

    async def append(self, path: str, data: bytes | str) -> int:
        """Add to a file."""
        return await self._hold.box.write_file(path, _bytes(data), append=True)

    async def list(self, path: str = ".", *, depth: int = 1) -> list[DirEntry]:
        """List a directory."""
        return await self._hold.box.list_files(path, depth=depth)

    async def stat(self, path: str) -> DirEntry:
        """Describe one path."""
        return await self._hold.box.stat_file(path)

    async def exists(self, path: str) -> bool:
        """Whether the path is there."""
        try:
            await self._hold.box.stat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        await self._hold.box.make_dir(path)

    async def move(self, source: str, target: str) -> None:
        """Rename."""
        await self._hold.box.move_file(source, target)

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link or a tree."""
        await self._hold.box.remove_file(path, recursive=recursive, missing_ok=missing_ok)


class BoxContext:
    """One stateful interpreter; implements `service.Context`."""

    def __init__(self, hold: Hold, context_id: str) -> None:
        """Name one that is there; called by `BoxContexts.open`."""
        self._hold = hold
        self.id = context_id

    async def run(
        self, code: str, *, timeout: float | None = None, on_output: OnOutput | None = None
    ) -> ContextResult:
        """Run one cell."""
        check_timeout(timeout)
        return await self._hold.box.run_in_context(
            self.id, code, timeout=timeout, max_output=DEFAULT_MAX_OUTPUT, on_output=on_output
        )

    async def aclose(self) -> None:
        """End it."""
        try:
            await self._hold.box.close_context(self.id)
        except ContextNotFound:
            return


class BoxContexts:
    """The stateful interpreters of a box; implements `service.Contexts`."""

    def __init__(self, hold: Hold) -> None:
        """Work through this hold."""
        self._hold = hold

    async def open(
        self, *, env: Mapping[str, str | None] | None = None, cwd: str | None = None
    ) -> BoxContext:
        """Start one."""
        return BoxContext(
            self._hold, await self._hold.box.open_context(env=dict(env or {}), cwd=cwd)
        )

    def get(self, context_id: str) -> BoxContext:
        """Return one by its id; that it is gone shows when it is used."""
        return BoxContext(self._hold, context_id)

    async def list(self) -> list[str]:
        """Return the ids of the living ones."""
        return await self._hold.box.list_contexts()


def command_line(command: Sequence[str] | str) -> tuple[str, ...]:
    """Return what is executed: a string by a shell, a sequence as it is."""
    if isinstance(command, str):
        return (_SHELL, "-c", command)
    line = tuple(command)
    if not line or not all(isinstance(part, str) for part in line):
        raise InvalidSpec("a command is a string or a sequence of strings that is not empty")
    if any("\0" in part for part in line):
        raise InvalidSpec("a command cannot have a NUL byte in it")
    return line


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no number of seconds."""
    if timeout is not None and not 0 < timeout < float("inf"):
        raise InvalidSpec(f"timeout must be a positive number of seconds, not {timeout!r}")


def run_options(
    *,
    argv: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    stdin: bytes | str | None = b"",
    timeout: float | None = None,
    max_output: int | None = DEFAULT_MAX_OUTPUT,
) -> RunOptions:
    """Return the options of one run, checked."""
    check_timeout(timeout)
    return RunOptions(
        argv=tuple(argv),
        env=dict(env or {}),
        cwd=cwd,
        stdin=None if stdin is None else _bytes(stdin),
        timeout=timeout,
        max_output=max_output,
    )


async def follow(process: Process, on_output: OnOutput) -> ExecResult:
    """Run a started process to its end, telling `on_output` each piece of output as it comes.

    The result holds the output too, as if nobody had listened.
    """
    kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    async with process:
        async for stream, data in process:
            kept[stream] += data
            told = on_output(stream, data)
            if told is not None:
                await told
        result = await process.wait()
    return result.model_copy(
        update={stream: bytes(data).decode("utf-8", "replace") for stream, data in kept.items()}
    )


def _bytes(data: bytes | str) -> bytes:
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
