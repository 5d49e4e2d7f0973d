"""The entry point: `serve` turns a process that has just entered its jail into the guest."""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
from typing import TYPE_CHECKING, NoReturn

from . import frames as frames
from . import rights, script, signals
from .child import Departure
from .connection import ConnectionOver
from .contexts import Contexts
from .guest import Guest
from .interpreter import Interpreter
from .operations import HANDLERS
from .pristine import Pristine
from .settings import Settings as Settings

if TYPE_CHECKING:
    from typing import Callable

_FIRST_FREE_FD = 3
_alive: list[Guest] = []
"""Keeps the guest's objects from being finalised in its children, whose descriptors they name."""


def serve(
    read_fd: int, write_fd: int, settings: Settings, interpreter: Interpreter | None = None
) -> NoReturn:
    """Be the guest until the host goes away; in each child, be what it was forked for.

    `interpreter` is what `training` has returned, if it has been called.  Raises RuntimeError where
    this process is not process 1: the guest kills everything that it can reach.
    """
    if os.getpid() != 1:
        raise RuntimeError("the guest serves only as process 1 of a sandbox")
    program = _serve(read_fd, write_fd, settings, interpreter)
    program()
    os._exit(0)


def _serve(
    read_fd: int, write_fd: int, settings: Settings, interpreter: Interpreter | None
) -> Callable[[], None]:
    """Serve; return only in a child, with its program."""
    try:
        guest = _begin(read_fd, write_fd, settings, interpreter)
        _alive.append(guest)
        gc.freeze()
        guest.loop.run()
    except Departure as departure:
        return departure.program
    except (ConnectionOver, frames.FrameError):
        # The kernel ends every other process of the sandbox with us.
        os._exit(0)
    raise AssertionError("the loop ends only by an exception")


def _begin(
    read_fd: int, write_fd: int, settings: Settings, interpreter: Interpreter | None
) -> Guest:
    read_fd, write_fd = _make_room(read_fd, write_fd)
    rights.set_dumpable(False)
    # Process 1 is immune to what has no handler; SIGINT has one in a fresh interpreter.
    signals.handle(signal.SIGINT, signals.IGNORE)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signals.handle(number, signals.DEFAULT)
    if settings.has_python and settings.executable is not None:
        if interpreter is None:
            interpreter = Interpreter(settings.executable)
            script.prepare(interpreter)
        interpreter.set_environment(settings.env)
    if settings.uid is not None and settings.gid is not None:
        rights.use_files_as(settings.uid, settings.gid)
    # Only once the host has spoken: what is forked before then is under no limits of the host's.
    select.select([read_fd], [], [])
    # A sandbox that is to be reset notes first what it is like with no process but this.
    with_spare = not settings.writable
    guest = Guest(read_fd, write_fd, settings, HANDLERS, interpreter, with_spare=with_spare)
    guest.contexts = Contexts(guest)
    if settings.writable:
        guest.pristine = Pristine(settings.writable)
    return guest


def _make_room(read_fd: int, write_fd: int) -> tuple[int, int]:
    """Have descriptors 0, 1 and 2 open on nothing, and the connection above them."""
    moved = {
        fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in {read_fd, write_fd}
    }
    for fd in moved:
        os.close(fd)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(_FIRST_FREE_FD):
        if fd != null:
            os.dup2(null, fd)
    if null >= _FIRST_FREE_FD:
        os.close(null)
    return moved[read_fd], moved[write_fd]
