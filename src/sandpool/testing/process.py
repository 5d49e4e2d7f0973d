"""One run inside a `FakeBox`, and its handle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.lowlevel

from sandpool.clock import Clock
from sandpool.errors import SandboxDied, SandpoolError, Unsupported
from sandpool.models import ExecResult, Stream
from sandpool.testing.machine import Exit, Pipe

Program = Callable[["Run"], Awaitable[int]]

_NOT_EXECUTABLE = 126


class Run:
    """One program in progress: its output, its deadline and how it ended."""

    def __init__(
        self,
        program: Program,
        *,
        pid: int,
        clock: Clock,
        stdin: bytes | None,
        timeout: float | None,
        max_output: int | None,
        on_end: Callable[[Run], None],
    ) -> None:
        """Prepare it; nothing runs before `execute`."""
        self.pid = pid
        self.stdin = Pipe(stdin)
        self._program = program
        self._clock = clock
        self._timeout = timeout
        self._max_output = max_output
        self._on_end = on_end
        self._scope: anyio.CancelScope | None = None
        self._ended = anyio.Event()
        self._arrived = anyio.Event()
        self._fresh: deque[tuple[Stream, bytes]] = deque()
        self._kept: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._truncated = False
        self._exit: Exit | None = None
        self._timed_out = False
        self._failure: SandpoolError | None = None
        self._result: ExecResult | None = None
        self._began = 0.0
        self._duration = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the program has ended."""
        return self._ended.is_set()

    async def execute(self) -> None:
        """Run the program to its end, its deadline, or a signal."""
        self._began = self._clock.now()
        try:
            with anyio.CancelScope() as self._scope:
                if self._exit is not None:
                    return
                async with anyio.create_task_group() as group:
                    if self._timeout is not None:
                        group.start_soon(self._expire, self._timeout)
                    code = await self._guarded()
                    if self._exit is None:
                        self._exit = code
                    group.cancel_scope.cancel()
        finally:
            self._duration = self._clock.now() - self._began
            self._ended.set()
            self._arrived.set()
            self._on_end(self)

    async def _guarded(self) -> Exit:
        try:
            return Exit(await self._program(self))
        except Exit as exit_:
            return exit_
        except SandpoolError as error:
            # It could not be started; `result` tells.
            self._failure = error
            return Exit(_NOT_EXECUTABLE)

    async def _expire(self, timeout: float) -> None:
        await self._clock.sleep(timeout)
        self._timed_out = True
        self.kill(9)

    def kill(self, signal: int, death: SandboxDied | None = None) -> None:
        """End the program as by `signal`; with `death`, `result` raises it."""
        if self.is_over:
            return
        self._exit = Exit(128 + signal, signal)
        self._failure = death
        if self._scope is not None:
            self._scope.cancel()

    def emit(self, stream: Stream, data: bytes) -> None:
        """Take output from the program, up to the limit."""
        if self._max_output is not None:
            room = self._max_output - self._kept[stream]
            if len(data) > room:
                self._truncated = True
                data = data[:room]
        if data:
            self._kept[stream] += len(data)
            self._fresh.append((stream, data))
            self._arrived.set()
            self._arrived = anyio.Event()

    async def next_output(self) -> tuple[Stream, bytes] | None:
        """Wait for output; None once the program has ended and all has been taken."""
        while not self._fresh:
            if self.is_over:
                return None
            await self._arrived.wait()
        return self._fresh.popleft()

    def output(self) -> list[tuple[Stream, bytes]]:
        """Return what has not been taken, and leave it there."""
        return list(self._fresh)

    async def result(self) -> ExecResult:
        """Wait for the end; stdout and stderr hold what was not taken."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure
        if self._result is not None:
            return self._result
        exit_ = self._exit if self._exit is not None else Exit(128 + 9, 9)
        texts = {"stdout": b"", "stderr": b""}
        for stream, data in self._fresh:
            texts[stream] += data
        self._fresh.clear()
        self._result = ExecResult(
            exit_code=exit_.code,
            signal=exit_.signal,
            stdout=texts["stdout"].decode("utf-8", "replace"),
            stderr=texts["stderr"].decode("utf-8", "replace"),
            duration=self._duration,
            timed_out=self._timed_out,
            truncated=self._truncated,
        )
        return self._result


class FakeProcess:
    """The handle of a run that was started."""

    def __init__(self, run: Run) -> None:
        """Start it."""
        self._run = run
        self.pid: int | None = run.pid
        # The caller owns this task: leaving `async with`, a signal or the box's end ends it.
        self._task = asyncio.get_running_loop().create_task(run.execute())

    async def __aenter__(self) -> FakeProcess:
        """Return itself."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Kill it if it has not ended."""
        self._run.kill(9)
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])

    def __aiter__(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Iterate over the output as it comes."""
        return self._output()

    async def _output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (piece := await self._run.next_output()) is not None:
            yield piece

    async def send(self, data: bytes) -> None:
        """Write to standard input."""
        self._run.stdin.feed(data)
        await anyio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Close standard input."""
        self._run.stdin.end()
        await anyio.lowlevel.checkpoint()

    async def signal(self, number: int) -> None:
        """End it as by this signal."""
        self._run.kill(number)
        await anyio.lowlevel.checkpoint()

    async def resize(self, rows: int, cols: int) -> None:
        """Refuse: there are no terminals here."""
        raise Unsupported("this process has no terminal")

    async def wait(self) -> ExecResult:
        """Return the result."""
        return await self._run.result()
