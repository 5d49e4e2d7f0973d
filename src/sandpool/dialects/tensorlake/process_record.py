"""`ProcessRecord`: one process of a sandbox, from its start until it is forgotten.

running ──► exited | signaled | oom_killed
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import anyio

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.models import milliseconds
from sandpool.dialects.tensorlake.output import Output
from sandpool.dialects.tensorlake.process_models import ManagedInfo, ProcessInfo
from sandpool.errors import SandpoolError
from sandpool.models import ExecResult
from sandpool.service import Process

ProcessStatus = Literal["running", "exited", "signaled", "oom_killed"]
ExitReason = Literal["exited", "signaled", "oom_killed", "timed_out"]

_KILLED = 9
_NO_PID = 1 << 22
"""The first number that no kernel gives to a process: for those that never had one."""
_PID_BOUND = 5.0
"""Seconds in which a sandbox tells a process's id; it takes a few milliseconds."""
_PID_POLL = 0.001


class ProcessRecord:
    """One process; `follow` must be going for it to be more than a start."""

    def __init__(
        self,
        handle: int,
        command: str,
        args: tuple[str, ...],
        process: Process,
        *,
        clock: Clock,
        has_stdin: bool,
        is_recorded: tuple[bool, bool] = (True, True),
    ) -> None:
        """Describe a process that has just been started.

        Args:
            handle: Its number in its sandbox, never used again.
            command: What was started.
            args: What it was given.
            process: The process itself.
            clock: What time is.
            has_stdin: Whether its standard input stays open.
            is_recorded: Whether its stdout and its stderr are kept.
        """
        self.handle = handle
        self.command = command
        self.args = args
        self.pid = 0
        self.status: ProcessStatus = "running"
        self.reason: ExitReason | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.stdin_writable = has_stdin
        self.output = Output()
        self.ended = anyio.Event()
        self._process = process
        self._clock = clock
        self._is_recorded = {"stdout": is_recorded[0], "stderr": is_recorded[1]}
        self.started_at: datetime = clock.utc()
        self.ended_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status != "running"

    def info(self, managed: ManagedInfo | None = None) -> ProcessInfo:
        """Describe it, with what is said of it by who looks after it."""
        over = None if self.ended_at is None else milliseconds(self.ended_at)
        return ProcessInfo(
            handle=self.handle,
            pid=self.pid,
            status=self.status,
            exit_code=self.exit_code,
            signal=self.signal,
            stdin_writable=self.stdin_writable,
            command=self.command,
            args=self.args,
            started_at=milliseconds(self.started_at),
            ended_at=over,
            managed=managed,
        )

    async def follow(self) -> None:
        """Take its output until it has ended; cancelled, it is killed."""
        try:
            async with self._process as process:
                async for stream, data in process:
                    if self._is_recorded[stream]:
                        self.output.add(stream, data, milliseconds(self._clock.utc()))
                self._settle(await process.wait())
        except SandpoolError as error:
            # The sandbox has ended, and the process with it.
            self._end("signaled", "signaled", exit_code=-_KILLED, signal=_KILLED)
            self.output.add("stderr", f"{error}\n".encode(), milliseconds(self._clock.utc()))
        finally:
            if not self.is_over:
                self._end("signaled", "signaled", exit_code=-_KILLED, signal=_KILLED)
            self.output.end(milliseconds(self._clock.utc()))
            self.ended.set()

    async def wait_pid(self) -> None:
        """Return once it has a process id, or has ended without one.

        The id comes with the first output of `follow`, which tells nobody when it has.
        """
        with anyio.move_on_after(_PID_BOUND):
            while self._process.pid is None and not self.ended.is_set():
                await self._clock.sleep(_PID_POLL)
        pid = self._process.pid
        self.pid = pid if pid is not None else _NO_PID + self.handle

    async def send_signal(self, number: int) -> None:
        """Send a signal to its process group; nothing happens to one that has ended."""
        if not self.is_over:
            await self._process.signal(number)

    async def kill(self) -> None:
        """Kill it and wait for its end."""
        await self.send_signal(_KILLED)
        await self.ended.wait()

    async def write(self, data: bytes) -> None:
        """Write to its standard input."""
        await self._process.send(data)

    async def close_stdin(self) -> None:
        """End its standard input; idempotent."""
        if self.stdin_writable:
            self.stdin_writable = False
            await self._process.send_eof()

    def _settle(self, result: ExecResult) -> None:
        if result.timed_out:
            self._end("signaled", "timed_out", exit_code=-_KILLED, signal=_KILLED)
        elif result.oom_killed:
            self._end("oom_killed", "oom_killed", exit_code=-_KILLED, signal=_KILLED)
        elif result.signal is not None:
            code = -result.signal
            self._end("signaled", "signaled", exit_code=code, signal=result.signal)
        else:
            self._end("exited", "exited", exit_code=result.exit_code, signal=None)

    def _end(
        self, status: ProcessStatus, reason: ExitReason, *, exit_code: int, signal: int | None
    ) -> None:
        self.status = status
        self.reason = reason
        self.exit_code = exit_code
        self.signal = signal
        self.stdin_writable = False
        self.ended_at = self._clock.utc()
