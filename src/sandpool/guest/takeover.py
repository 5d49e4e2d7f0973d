"""Goes on where a sandbox has been served without Python so far (`template/plain.c`).

What was served there left a guest that looks as if it had done all of it itself: bound to its
lease, with its spare, and perhaps with one run under way.
"""

from __future__ import annotations

import marshal
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Optional, Tuple

from . import frames, operations, run
from .request import Request
from .source import Sources
from .spare import EarlySpare

if TYPE_CHECKING:
    from .guest import Guest
    from .settings import Settings


class EarlyRun(NamedTuple):
    """A run that was begun before its guest."""

    number: int
    """Of its request."""
    started: float
    """Seconds of the monotonic clock."""
    timeout: Optional[float]
    credit: int
    """Bytes that may still be sent for it."""
    left: Tuple[int, int]
    """Bytes of each output that may still be passed on."""
    is_truncated: Tuple[bool, bool]
    status: Optional[int]
    """What its process has ended with, if it has; it has been reaped then."""
    ended: float
    """When that was."""


class Served(NamedTuple):
    """How far a sandbox has been served."""

    env: bytes
    """As `hello` has given it, in JSON; empty for none."""
    epoch: Optional[int]
    bound_env: bytes
    """As `bind` has given it."""
    run: Optional[EarlyRun]
    """Whose process is what the spare has become."""
    unsent: bytes
    """What the host is to get before anything else."""
    rest: bytes
    """What has come from the host and is still to be dealt with, before anything else comes."""


def resume(guest: Guest, process: EarlySpare, served: Served) -> None:
    """Make `guest`, which has just been made, one that has served all this."""
    guest.kin.pass_over(process.tag)
    guest.endow(_environment(served.env))
    if served.epoch is not None:
        guest.binding.bind(served.epoch, _environment(served.bound_env), None, True)
        if guest.interpreter is not None:
            guest.interpreter.set_environment(guest.binding.env)
    if served.unsent:
        guest.connection.write(served.unsent)
    if served.run is not None:
        _resume_run(guest, process, served.run)
    elif guest.spare.pid == 0:
        guest.spare.make_later()


def _resume_run(guest: Guest, process: EarlySpare, early: EarlyRun) -> None:
    request = Request(early.number, guest.connection, guest.forget)
    request.credit = early.credit
    guest.requests[early.number] = request
    guest.kin.admit(process.tag)
    plumbing = run.Plumbing.adopt(process.stdin, process.stdout, process.stderr)
    started = run.resume(guest, request, process.tag, process.pid, plumbing, early)
    started.on_finish(partial(operations.end_code, guest, guest.sources.resume()))
    if early.status is not None:
        # Before anything that the host has sent: it must not be for a process that there is not.
        started.end(early.status, early.ended)
    else:
        # It may have ended before anybody listened for that.
        guest.loop.soon(guest.reaper.reap)


def _environment(given: bytes) -> dict[str, str | None]:
    return frames.decode_json(given) if given else {}


def first_path(settings: Settings) -> str:
    """Return where the code of a run lies that begins while there is no other."""
    return Sources(settings).path(1)


def order(settings: Settings, path: str) -> tuple[bytes, bytes]:
    """Return an order for a plain run of that code: what comes before its environment, and after.

    It is marshalled without references, so that the two parts do not depend on what is between.
    """
    stand_in = b"environment"
    made = marshal.dumps((path, [], stand_in, settings.working_dir, True), 2)
    before, _, after = made.partition(marshal.dumps(stand_in, 2))
    return before, after
