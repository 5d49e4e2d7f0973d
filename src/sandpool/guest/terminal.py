"""Programs on a terminal of their own."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from functools import partial
from typing import TYPE_CHECKING, Any

from . import child, frames
from .inlet import Inlet
from .outlet import Outlet
from .refusal import no_room
from .run import Run
from .settings import PATH

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request

_SIZE = struct.Struct("HHHH")
_LARGEST = 0xFFFF
_END_OF_INPUT = b"\x04"
_SETTLING = 0.02
"""Seconds that the kernel may take to move the last output from one end to the other."""


def open_terminal(guest: Guest, request: Request, fields: Fields) -> None:
    """Run a command on a new terminal."""
    argv = fields.strings("argv", required=True)
    env = guest.binding.environment(fields.environment("env"))
    cwd = fields.path("cwd", None)
    rows = fields.integer("rows", 24, low=1, high=_LARGEST)
    cols = fields.integer("cols", 80, low=1, high=_LARGEST)
    timeout = fields.seconds("timeout")
    fields.finish()
    env.setdefault("TERM", "xterm-256color")
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise no_room(error) from error
    try:
        _resize(master, rows, cols)
        tag, pid = guest.fork(partial(_execute, argv, env), cwd, slave, slave, slave)
    except Exception:
        os.close(master)
        os.close(slave)
        raise
    os.close(slave)
    os.set_blocking(master, False)
    terminal = Terminal(guest, request, tag, pid, master)
    terminal.limit(timeout)


def _execute(argv: list[str], env: dict[str, str]) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    child.execute(argv, env, PATH)


def _resize(fd: int, rows: int, cols: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, _SIZE.pack(rows, cols, 0, 0))


class Terminal(Run):
    """A program on a terminal: what it shows comes as DATA, what is typed goes there."""

    def __init__(self, guest: Guest, request: Request, tag: int, pid: int, master: int) -> None:
        """Watch over the process `pid`; `master` is the host's end of its terminal."""
        self._master = master
        # Each direction has a descriptor of its own: the loop knows one watcher for each.
        typed = os.dup(master)
        outlet = Outlet(guest.loop, guest.connection, master, frames.DATA)
        outlet.attach(request, None)
        self._screen = outlet
        self._typing = Inlet(guest.loop, typed, lambda: os.close(typed))
        super().__init__(guest, request, tag, pid, (outlet,), self._typing)

    def eof(self, request: Request) -> None:
        """Type the character that ends the input: closing our end would hang up."""
        self._typing.feed(request, _END_OF_INPUT)

    def control(self, request: Request, value: dict[str, Any]) -> None:
        """Change the size, or do what can be done to every run."""
        rows, cols = value.get("rows"), value.get("cols")
        if isinstance(rows, int) and isinstance(cols, int):
            if 0 < rows <= _LARGEST and 0 < cols <= _LARGEST and not self._screen.has_ended:
                _resize(self._master, rows, cols)
        else:
            super().control(request, value)

    def _drain(self) -> None:
        if self._screen.has_ended:
            super()._drain()
        else:
            self._guest.loop.after(_SETTLING, super()._drain)
