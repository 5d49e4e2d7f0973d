"""A process on a terminal of its own in a sandbox, shown on ours."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from sandpool.errors import InvalidSpec
from sandpool.service import Process, Sandbox

_CHUNK = 64 * 1024


async def attend_terminal(sandbox: Sandbox, argv: tuple[str, ...]) -> int:
    """Run a command there until it has ended, and return its exit code.

    Every key goes to it, Ctrl-C too.  Raises `InvalidSpec` where we have no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidSpec("a shell needs a terminal; use `sandpool sandbox exec` without one")
    size = shutil.get_terminal_size()
    term = {"TERM": os.environ.get("TERM", "xterm")}
    process = await sandbox.open_pty(argv, rows=size.lines, cols=size.columns, env=term)
    async with process:
        with _raw(sys.stdin.fileno()):
            return await _relay(process)


async def _relay(process: Process) -> int:
    async with anyio.create_task_group() as group:
        group.start_soon(_pass_keys, process)
        group.start_soon(_pass_sizes, process)
        async for _, data in process:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        group.cancel_scope.cancel()
    return (await process.wait()).exit_code


async def _pass_keys(process: Process) -> None:
    descriptor = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(descriptor)
        data = os.read(descriptor, _CHUNK)
        if not data:
            return
        await process.send(data)


async def _pass_sizes(process: Process) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            size = shutil.get_terminal_size()
            await process.resize(size.lines, size.columns)


@contextmanager
def _raw(descriptor: int) -> Generator[None]:
    """Let a terminal hand on every key as it is, for as long as the block lasts."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
