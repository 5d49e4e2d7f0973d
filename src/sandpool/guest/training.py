"""Goes through what every sandbox does, over and over, in the template: so that forks need not.

CPython adapts code to what it meets: it rewrites instructions, and fills caches of types and
modules.  A fork that does so writes to pages that it shared until then, and the copies are what a
sandbox costs.  What was adapted before the fork is there for all of them.

Nothing here touches anything but this process and what it opens.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from . import frames, main, rehearsal, script, signals
from .interpreter import Interpreter
from .operations import bind, run_code
from .settings import Settings
from .source import Source, Sources
from .spare import EarlySpare, Spare, pack

if TYPE_CHECKING:
    from typing import NoReturn

    from .guest import Guest

_ROUNDS = 24
"""More than the calls after which CPython takes code for settled."""

_HANDLED = signals.SIGCHLD, signals.SIGHUP, signals.SIGINT, signals.SIGTERM
"""Signals that a guest has handlers of its own for."""

_NOWHERE = "/.sandpool/nowhere"
"""A place that is in no image."""

_REQUESTS: tuple[dict[str, Any], ...] = (
    {"op": "hello", "version": frames.VERSION},
    {"op": "ping"},
    {"op": "bind", "epoch": 1},
)


class _Enough(Exception):
    """Ends the loop of a guest in training."""


class _NoSources(Sources):
    """Source files that are written and never kept."""

    def create(self) -> Source:
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        return Source(self, 1, null)


class _NoSpare(Spare):
    """A spare that is never made: a fork of the template would be part of no sandbox."""

    def make_later(self) -> None:
        """Fork nothing, however long the rest of the training takes."""


def train(executable: str, env: dict[str, str] | None = None) -> Interpreter:
    """Make this process one that has done it all before; return the interpreter that it is.

    It is as it was otherwise, but for its environment, if `env` is another.
    """
    interpreter = Interpreter(executable)
    script.prepare(interpreter)
    directory = os.getcwd()
    env = env if env is not None else interpreter.env
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        for _ in range(_ROUNDS):
            _be_guest(interpreter)
        for _ in range(_ROUNDS):
            _be_spare(interpreter)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        interpreter.set_environment(env)
        os.chdir(directory)
    return interpreter


def _be_guest(interpreter: Interpreter) -> None:
    """Be the guest of a host that shakes hands and runs one piece of code."""
    host, guest_side = socket.socketpair()
    fd = guest_side.detach()
    settings = Settings(_settings(interpreter))
    main.inherit(settings, interpreter)
    orders = socket.socketpair()
    ends = orders[0].detach(), orders[1].detach()
    none = EarlySpare(-1, 0, False, os.pipe(), os.pipe(), os.pipe(), ends)
    guest = main.make_guest(fd, fd, settings, interpreter, none)
    guest.sources = _NoSources(guest.settings)
    guest.spare = _NoSpare(guest)
    try:
        for number, values in enumerate(_REQUESTS):
            host.sendall(frames.encode_json(2 * number + 1, frames.REQUEST, values))
        guest.loop.after(0, lambda: _run(guest))
        guest.loop.run()
    except _Enough:
        pass
    finally:
        guest.reaper.close()
        guest.loop.close()
        for each in (fd, guest.null):
            os.close(each)
        host.close()


def _run(guest: Guest) -> None:
    def respond() -> None:
        # The turn after the next one: what the run has opened is closed by then.
        guest.loop.soon(lambda: guest.loop.soon(_leave))

    rehearsal.rehearse(guest, bind, run_code, respond)


def _be_spare(interpreter: Interpreter) -> None:
    """Be the spare of such a guest, up to where its code would be compiled."""
    path, argv = _NOWHERE + "/main.py", list(sys.argv)
    guest_side, spare_side = socket.socketpair()
    try:
        script.rehearse(interpreter)
        guest_side.sendall(pack((path, argv, None, "/", False)))
        script.read_order(spare_side.fileno())
    finally:
        guest_side.close()
        spare_side.close()


def _leave() -> NoReturn:
    raise _Enough


def _settings(interpreter: Interpreter) -> dict[str, object]:
    return {
        "uid": None,
        "gid": None,
        "home": "/",
        "working_dir": "/",
        "run_dir": _NOWHERE,
        "has_python": True,
        "executable": interpreter.executable,
        "rlimits": {},
        "env": {},
    }
