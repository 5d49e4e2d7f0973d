"""A process with our own input and output as its own, until it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys

import anyio

from sandpool.cli import exits
from sandpool.errors import SandpoolError
from sandpool.models import ExecResult
from sandpool.service import Process

_CHUNK = 64 * 1024


async def attend(process: Process) -> int:
    """Relay output, input and interrupts until the process has ended; return its exit code."""
    return report(await _relay(process))


def report(result: ExecResult) -> int:
    """Say if we have killed it, and return the exit code that ours is to be."""
    if result.timed_out:
        print(f"sandpool: killed after {result.duration:.1f} s", file=sys.stderr)
        return exits.TIMED_OUT
    if result.oom_killed:
        print("sandpool: killed for its memory limit", file=sys.stderr)
    return result.exit_code


async def _relay(process: Process) -> ExecResult:
    async with anyio.create_task_group() as group:
        group.start_soon(_pass_interrupts, process)
        group.start_soon(_pass_input, process)
        # What goes wrong with the process is `wait`'s to say, and not a group's.
        with contextlib.suppress(SandpoolError):
            async for stream, data in process:
                target = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
                target.write(data)
                target.flush()
        group.cancel_scope.cancel()
    return await process.wait()


async def _pass_interrupts(process: Process) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            with contextlib.suppress(SandpoolError):
                await process.signal(number)


async def _pass_input(process: Process) -> None:
    """Send what comes on our input, and its end."""
    try:
        kind = os.fstat(0).st_mode
    except OSError:
        await process.send_eof()  # we were started without one
        return
    # A file is always ready, which no event loop can be asked about.
    is_file = stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not os.isatty(0))
    try:
        while True:
            if not is_file:
                await anyio.wait_readable(0)
            data = os.read(0, _CHUNK)
            if not data:
                break
            await process.send(data)
        await process.send_eof()
    except (ConnectionError, SandpoolError):
        return  # the command does not read any more, which is its own affair
