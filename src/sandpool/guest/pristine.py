"""Makes a sandbox as it was at its start, and proves it by comparison; any difference is a refusal.

    kill everything -> wait until it is gone -> empty the writable places -> compare with the start

What is compared is what a tenant may have changed and another could notice: processes, mounts, the
writable places with their owners and free room, System V objects, message queues, open sockets,
and of this process, which shares its user with the tenant, all that the kernel lets one process
change in another of its user.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any, Dict, List

from . import frames, processes, rights
from .loop import monotonic
from .refusal import Refusal
from .removal import discard
from .request import Activity
from .settings import Binding

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request
    from .slicing import Slices

_PATIENCE = 2.0
"""Seconds for what was killed to be gone."""
_SETTLING = 0.25
"""Seconds, from when the last process is gone, for everything to be as it was."""
_PAUSE = 0.001
_AT_ONCE = 16
"""Slices of clearing in one turn of the loop."""
_TIME_WAIT = "06"

_TABLES = (
    "/proc/self/mountinfo",
    "/proc/sysvipc/msg",
    "/proc/sysvipc/sem",
    "/proc/sysvipc/shm",
    "/proc/net/unix",
)
_SOCKET_COUNTS = ("/proc/net/sockstat", "/proc/net/sockstat6")
_SOCKETS = ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6")
_OF_THIS_NETWORK = frozenset(("used", "inuse"))

Look = Dict[str, Any]


class Pristine:
    """What the sandbox was like before any tenant came."""

    def __init__(self, places: List[str]) -> None:
        """Look at it now; `places` are the mount points that a tenant can write to."""
        self.places = places
        self._start = self._look()

    def differences(self) -> List[str]:
        """Return the names of what is not as it was."""
        now = self._look()
        return sorted(
            name
            for name in {*now, *self._start}
            if now.get(name, _NOTHING) != self._start.get(name, _NOTHING)
        )

    def _look(self) -> Look:
        found: Look = {name: _read(name) for name in _TABLES}
        found["sockets"] = _socket_counts() or _sockets()
        for place in self.places:
            found[place] = _describe(place)
        found["processes"] = processes.pids()
        found["guest"] = _own_state()
        return found


_NOTHING = object()


def _read(path: str) -> str:
    """Return the text of a table of the kernel's; one that it does not have is empty."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _socket_counts() -> List[str]:
    """Return how many sockets of each kind there are; the kernel's other figures are the host's.

    The tables of connections would cost milliseconds: the kernel looks through the whole host's.
    """
    found: List[str] = []
    for path in _SOCKET_COUNTS:
        for line in _read(path).splitlines():
            words = line.split()
            if len(words) > 2 and words[1] in _OF_THIS_NETWORK:
                found.append(" ".join(words[:3]))
    return found


def _sockets() -> List[str]:
    """Return who is connected to or listens on what, without connections that are over."""
    rows = (line.split() for path in _SOCKETS for line in _read(path).splitlines()[1:])
    return sorted(" ".join(row[1:4]) for row in rows if len(row) > 3 and row[3] != _TIME_WAIT)


def _describe(place: str) -> Any:
    if not os.path.isdir(place):
        return None  # not every runtime has every place
    found = os.stat(place)
    room = os.statvfs(place)
    try:
        attributes = sorted(os.listxattr(place))
    except OSError:
        attributes = []  # a file system without any
    return (
        found.st_mode,
        found.st_uid,
        found.st_gid,
        room.f_bfree,
        room.f_ffree,
        attributes,
        sorted(os.listdir(place)),
    )


def _own_state() -> Any:
    limits = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    return (
        [resource.getrlimit(limit) for limit in limits],
        sorted(os.sched_getaffinity(0)),
        os.sched_getscheduler(0),
        os.sched_getparam(0).sched_priority,
        os.getpriority(os.PRIO_PROCESS, 0),
        rights.io_priority(),
        os.getpgid(0),
        os.getsid(0),
    )


def reset(guest: Guest, request: Request, fields: Fields) -> None:
    """Make the sandbox as it was at its start; refused where that cannot be proved."""
    fields.finish()
    if guest.pristine is None:
        raise Refusal("unsupported", "nothing was noted at this sandbox's start to compare with")
    for other in list(guest.requests.values()):
        if other is not request:
            other.receive(frames.CANCEL, b"")
    _Reset(guest, request, guest.pristine)


class _Reset(Activity):
    """One reset in progress.  It cannot be cancelled: its host destroys what it does not want."""

    def __init__(self, guest: Guest, request: Request, pristine: Pristine) -> None:
        self._guest = guest
        self._request = request
        self._pristine = pristine
        self._deadline = monotonic() + _PATIENCE
        self._slices: Slices
        request.activity = self
        guest.spare.rest()
        guest.hunt(None, self._wait)

    def _wait(self) -> None:
        guest = self._guest
        guest.reaper.reap()
        is_over = len(guest.requests) == 1 and guest.contexts.is_empty
        if is_over and not processes.pids() and not guest.spare.pid:
            self._deadline = monotonic() + _SETTLING
            self._slices = self._clear()
            self._step()
        elif monotonic() < self._deadline:
            guest.loop.after(_PAUSE, self._wait)
        else:
            self._refuse("what went on in it did not end")

    def _clear(self) -> Slices:
        places = self._pristine.places
        for place in filter(os.path.isdir, places):
            for name in os.listdir(place):
                path = place + "/" + name
                # A mount point stays, as does what leads to one; the comparison sees what it holds.
                if not any((other + "/").startswith(path + "/") for other in places):
                    yield from discard(path)
                yield

    def _step(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                next(self._slices)
        except StopIteration:
            self._finish()
        except OSError as error:
            self._refuse(f"{error.filename or 'a file'} cannot be removed: {error.strerror}")
        else:
            self._guest.loop.soon(self._step)

    def _finish(self) -> None:
        guest = self._guest
        different = self._pristine.differences()
        if different and monotonic() < self._deadline:
            # The kernel lets go of sockets and memory a moment after their processes have ended.
            guest.loop.after(_PAUSE, self._finish)
            return
        if different:
            self._refuse("not as at its start: " + ", ".join(different))
            return
        binding = Binding(guest.settings)
        # Requests of earlier leases stay fenced.
        binding.epoch = guest.binding.epoch
        guest.binding = binding
        if guest.interpreter is not None:
            guest.interpreter.set_environment(binding.env)
        # The spare rests on, so that the host finds nobody but us, until it asks for `warm`.
        self._request.respond({})

    def _refuse(self, reason: str) -> None:
        # A sandbox that is refused is destroyed: its spare stays at rest.
        self._request.fail("dirty", reason)
