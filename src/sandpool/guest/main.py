"""The entry point: `serve` turns a process that has just entered its jail into the guest."""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from . import frames as frames
from . import operations, rights, script, signals, takeover
from .child import KEPT as KEPT
from .child import Departure
from .connection import ConnectionOver
from .contexts import Contexts
from .guest import Guest
from .interpreter import Interpreter
from .kin import early_tag as early_tag
from .operations import HANDLERS
from .pristine import Pristine
from .settings import Settings as Settings
from .spare import EarlySpare as EarlySpare
from .takeover import EarlyRun as EarlyRun
from .takeover import Served as Served
from .takeover import first_path as first_path
from .takeover import order as order

if TYPE_CHECKING:
    from typing import Callable

_FIRST_FREE_FD = 3
_alive: list[Guest] = []
"""Keeps the guest's objects from being finalised in its children, whose descriptors they name."""


def serve(read_fd: int, write_fd: int, settings: Settings) -> NoReturn:
    """Be the guest until the host goes away; in each child, be what it was forked for.

    Raises RuntimeError where this process is not process 1: the guest kills everything that it can
    reach.
    """
    _refuse_all_but_process_1()
    read_fd, write_fd = _make_room(read_fd, write_fd)
    rights.set_dumpable(False)
    interpreter = None
    if settings.has_python and settings.executable is not None:
        interpreter = Interpreter(settings.executable)
        script.prepare(interpreter)
    if settings.uid is not None and settings.gid is not None:
        rights.use_files_as(settings.uid, settings.gid)
    # Only once the host has spoken: what is forked before then is under no limits of the host's.
    select.select([read_fd], [], [])
    _serve(read_fd, write_fd, settings, interpreter, None, None)


def serve_in_jail(
    fd: int,
    settings: Settings,
    interpreter: Interpreter | None,
    spare: EarlySpare | None,
    served: Served | None,
) -> NoReturn:
    """Be the guest, as `serve` is, where the jail has seen to all that comes before.

    Descriptors 0, 1 and 2 are open on nothing, this process can be neither traced nor dumped, it
    uses files with the rights of the tenant, and `spare`, if there is one, was forked after the
    host had spoken.  `interpreter` is what `training` has returned, and `served` how far the
    sandbox has been served already.
    """
    _refuse_all_but_process_1()
    _serve(fd, fd, settings, interpreter, spare, served)


def be_spare(settings: Settings, interpreter: Interpreter, is_hurried: bool) -> NoReturn:
    """Be the spare of `serve_in_jail`, which is a process of the tenant already.

    One that `is_hurried` has its order coming, and prepares for nothing else.
    """
    try:
        # The template's: its number may be that of a file which the tenant opens.
        signal.set_wakeup_fd(-1)
        inherit(settings, interpreter)
        gc.freeze()
        if is_hurried:
            script.follow(interpreter, KEPT)
        script.park(interpreter, KEPT)
    except BaseException as error:  # noqa: BLE001 (nobody is above to tell)
        sys.__excepthook__(type(error), error, error.__traceback__)
    os._exit(1)


def _refuse_all_but_process_1() -> None:
    if os.getpid() != 1:
        raise RuntimeError("the guest serves only as process 1 of a sandbox")


def _serve(
    read_fd: int,
    write_fd: int,
    settings: Settings,
    interpreter: Interpreter | None,
    spare: EarlySpare | None,
    served: Served | None,
) -> NoReturn:
    program = _until_forked(read_fd, write_fd, settings, interpreter, spare, served)
    program()
    os._exit(0)


def _until_forked(
    read_fd: int,
    write_fd: int,
    settings: Settings,
    interpreter: Interpreter | None,
    spare: EarlySpare | None,
    served: Served | None,
) -> Callable[[], None]:
    """Serve; return only in a child, with its program."""
    try:
        inherit(settings, interpreter)
        is_running = served is not None and served.run is not None
        free = None if is_running else spare
        guest = make_guest(read_fd, write_fd, settings, interpreter, free, not is_running)
        _alive.append(guest)
        if spare is not None and served is not None:
            takeover.resume(guest, spare, served)
        gc.freeze()
        if served is not None:
            guest.connection.take(served.rest)
        guest.loop.run()
    except Departure as departure:
        return departure.program
    except (ConnectionOver, frames.FrameError):
        # The kernel ends every other process of the sandbox with us.
        os._exit(0)
    raise AssertionError("the loop ends only by an exception")


def inherit(settings: Settings, interpreter: Interpreter | None) -> None:
    """Have what every child is to inherit."""
    # Process 1 is immune to what has no handler; SIGINT has one in a fresh interpreter.
    signals.handle(signals.SIGINT, signals.IGNORE)
    for number in (signals.SIGTERM, signals.SIGHUP, signals.SIGCHLD):
        signals.handle(number, signals.DEFAULT)
    if interpreter is not None:
        interpreter.set_environment(settings.env)


def greeting(settings: Settings) -> bytes:
    """Return the answer that a guest with these settings gives to `hello`, as JSON."""
    return frames.as_json(operations.greeting(settings.has_python))


def make_guest(
    read_fd: int,
    write_fd: int,
    settings: Settings,
    interpreter: Interpreter | None,
    spare: EarlySpare | None,
    is_idle: bool = True,
) -> Guest:
    """Return the guest; it listens, but does nothing until its loop runs.

    One that is not idle has something running already, and a spare later, with a later tag.
    """
    # A sandbox that is to be reset notes first what it is like with no process but this.
    with_spare = is_idle and not settings.writable
    guest = Guest(
        read_fd, write_fd, settings, HANDLERS, interpreter, spare=spare, with_spare=with_spare
    )
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
