"""One fork of the interpreter made ahead of the run that will need it.

A fork costs a millisecond or two, most of it for the pages that the child touches first.  So while
nothing is asked of us a child is forked, goes through all that a run begins with, and waits; the
next `run_code` sends it an order instead of forking.  It is an ordinary process of the tenant,
which may kill or stop it: then the next run forks, or waits as any stopped program does.

    (none) ─► WARMING ─► PARKED ─► taken by a run
                 ├──────────┼────► taken by a run
                 └──────────┴────► dead, and another is made after a while

A run may take one that is WARMING, if nobody waits for that: it makes no more ready than it has to.
One that is told other limits is LOWERING them until it says that it has them, and no run takes it.

    S1  `_fd` is open exactly while there is a spare; its plumbing belongs to us until it is taken.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Tuple

from . import child, script
from .loop import READ
from .run import Pair, Plumbing

if TYPE_CHECKING:
    from typing import Callable

    from .guest import Guest

_FIRST_PAUSE, _LATER_PAUSE = 0.01, 0.0005
"""Seconds from an answer until the next spare is forked.

A sandbox of one run never pays for a second one, and a fork after later runs waits until the host,
which may be waiting for our processor, has got its answer.
"""

_LONGEST_ORDER = 64 * 1024
"""A socket with nothing in it takes this much at once; longer orders are left to a fork."""


class EarlySpare(NamedTuple):
    """A spare that was forked before its guest had begun, and what it and its guest share."""

    pid: int
    """Its process id; -1 where there is none."""
    tag: int
    is_parked: bool
    """Whether it has said so already."""
    stdin: Pair
    stdout: Pair
    stderr: Pair
    orders: Pair
    """The guest's end and the spare's.  An end that is closed is -1, here and above."""


def pack(order: script.Order | dict[int, int]) -> bytes:
    """Return an order, or limits, as `script.read_order` reads it."""
    packet = marshal.dumps(order)
    return script.ORDER_SIZE.pack(len(packet)) + packet


Taken = Tuple[int, int, Plumbing]
"""Tag, process id and pipes of a spare that has got its order."""


class Spare:
    """The sandbox's spare, if it has one."""

    __slots__ = (
        "_env",
        "_fd",
        "_guest",
        "_is_coming",
        "_is_held",
        "_is_parked",
        "_is_resting",
        "_pause",
        "_pid",
        "_plumbing",
        "_tag",
        "_takes_orders",
        "_waiting",
    )

    def __init__(self, guest: Guest) -> None:
        """Have none yet."""
        self._guest = guest
        self._pid = 0
        self._tag = 0
        self._fd = -1  # Invariant S1
        self._plumbing: Plumbing | None = None
        self._env: dict[str, str] = {}
        """The environment that it was forked with."""
        self._is_parked = False
        self._takes_orders = False
        """Whether it follows the next order; it may be on its way to that, as long as it lives."""
        self._pause = _FIRST_PAUSE
        self._is_held = False
        """Whether somebody has asked for a run, and so may ask for another."""
        self._is_coming = False
        self._is_resting = False
        self._waiting: list[Callable[[], None]] = []

    @property
    def pid(self) -> int:
        """Its process id; 0 if there is none."""
        return self._pid

    def when_parked(self, callback: Callable[[], None]) -> None:
        """Call `callback` once a spare waits for orders, or none can be had."""
        self._is_resting = False
        self._waiting.append(callback)
        if self._pid == 0:
            self._make()
        if self._is_parked or self._pid == 0:
            self._tell()

    def make_later(self) -> None:
        """Fork one soon, if there is none by then."""
        if not self._is_coming and self._pid == 0 and self._guest.interpreter is not None:
            self._is_coming = True
            self._guest.loop.after(self._pause, self._make)

    def rest(self) -> None:
        """Make none until somebody waits for one; one that there is stays."""
        self._is_resting = True

    def limit(self, rlimits: dict[int, int], done: Callable[[], None]) -> None:
        """Have the spare under these rlimits, or none; then call `done`.

        It lowers its own.  What it may not raise, it dies of.
        """
        if self._pid:
            self._waiting.append(done)
            if self._is_parked and self._send(pack(rlimits)):
                self._is_parked = self._takes_orders = False
                self._guest.loop.watch(self._fd, READ, self._ready)
            else:
                self.doom()
        else:
            done()

    def doom(self) -> None:
        """Kill it, if there is one: no run takes it any more, though it takes a moment to die."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._is_parked = self._takes_orders = False
            # It may have said that it waits, and not have been heard yet.
            self._guest.loop.unwatch(self._fd)

    def take(self, order: script.Order) -> Taken | None:
        """Send `order` to the spare; None if there is none to be had."""
        if self._is_held:
            # A host that leaves no time to make a spare ready gets the next one as soon as can be.
            self._pause = _LATER_PAUSE if self._is_parked else 0.0
        self._is_held = True
        if not self._takes_orders or self._plumbing is None:
            return None
        if self._waiting and not self._is_parked:
            return None  # somebody is to be told that there is one
        path, argv, env, cwd, reseed = order
        packet = pack((path, argv, None if env == self._env else env, cwd, reseed))
        if len(packet) > _LONGEST_ORDER:
            return None
        if not self._send(packet):
            # Somebody has killed it, or tampered with it.
            self.doom()
            return None
        taken = self._tag, self._pid, self._plumbing
        self._guest.kin.employ(self._tag)
        self._forget()
        return taken

    def _send(self, packet: bytes) -> bool:
        try:
            sent = os.write(self._fd, packet)
        except OSError:
            return False
        return sent == len(packet)

    def _make(self) -> None:
        self._is_coming = False
        if self._pid or self._is_resting:
            return
        self.fork()
        if self._pid:
            self.attend()

    def fork(self) -> None:
        """Fork it; needs nothing of the guest but its settings, tags and interpreter."""
        guest = self._guest
        if guest.interpreter is None:
            return
        ours, theirs = socket.socketpair()
        fd, order_fd = ours.detach(), theirs.detach()
        os.set_blocking(fd, False)
        plumbing: Plumbing | None = None
        try:
            plumbing = guest.plumb(True)
            program = partial(script.park, guest.interpreter, child.KEPT)
            self._tag, self._pid = guest.fork(
                program, None, plumbing.stdin, plumbing.stdout, plumbing.stderr, order_fd
            )
        except Exception:  # noqa: BLE001 (a sandbox at its limits has no spare; runs say why)
            os.close(fd)
            os.close(order_fd)
            if plumbing is not None:
                plumbing.close()
            return
        os.close(order_fd)
        plumbing.close_theirs()
        self._fd = fd
        self._plumbing = plumbing
        self._takes_orders = True
        self._env = guest.interpreter.env
        guest.kin.park(self._tag)

    def adopt(self, early: EarlySpare) -> None:
        """Have it, if it was forked; needs what `fork` needs."""
        fd, theirs = early.orders
        plumbing = Plumbing.adopt(early.stdin, early.stdout, early.stderr)
        if theirs >= 0:
            os.close(theirs)
        if early.pid < 0 or self._guest.interpreter is None:
            if fd >= 0:
                os.close(fd)
            plumbing.close()
            return
        os.set_blocking(fd, False)
        plumbing.close_theirs()
        self._tag, self._pid = early.tag, early.pid
        # One that is not parked may have been killed by what served before us.
        self._is_parked = self._takes_orders = early.is_parked
        self._fd = fd
        self._plumbing = plumbing
        self._env = self._guest.interpreter.env
        self._guest.kin.park(self._tag)

    def attend(self) -> None:
        """Wait for what it says, and for its end."""
        self._guest.reaper.expect(self._pid, self._died)
        if not self._is_parked:
            self._guest.loop.watch(self._fd, READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            said = os.read(self._fd, 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._guest.loop.unwatch(self._fd)
        if said:
            self._is_parked = self._takes_orders = True
            self._tell()

    def _died(self, status: int) -> None:
        tag, plumbing = self._tag, self._plumbing
        self._forget()
        if plumbing is not None:
            plumbing.close()
        self._guest.retire(tag)
        self._tell()

    def _forget(self) -> None:
        self._guest.loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._pid = 0
        self._plumbing = None
        self._is_parked = self._takes_orders = False

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
