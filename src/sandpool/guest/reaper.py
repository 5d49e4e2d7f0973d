"""Reaps every child of process 1: the runs it started, and the orphans it has inherited."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from . import signals
from .loop import READ

if TYPE_CHECKING:
    from typing import Callable

    from .loop import Loop

_AT_ONCE = 512
"""Children reaped in one turn; a fork bomb leaves more, and they can wait for the next."""


class Reaper:
    """Turns SIGCHLD into calls."""

    __slots__ = ("_expected", "_loop", "_wake_read", "_wake_write", "has_children")

    def __init__(self, loop: Loop) -> None:
        """Take over SIGCHLD and the wake-up descriptor."""
        self._loop = loop
        self._expected: dict[int, Callable[[int], None]] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signals.handle(signals.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        loop.watch(self._wake_read, READ, self._wake)
        self.has_children = False
        """Whether any child, expected or inherited, was left when we last looked."""

    def close(self) -> None:
        """Give back SIGCHLD and the wake-up descriptor."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.unwatch(self._wake_read)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def expect(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback(status)` when the child `pid` has ended."""
        self._expected[pid] = callback

    def tell(self, pid: int, status: int) -> None:
        """Tell whoever expects the end of `pid`."""
        callback = self._expected.pop(pid, None)
        if callback is not None:
            callback(status)

    def _wake(self, events: int) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        """Collect the children that have ended."""
        for _ in range(_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.has_children = False
                return
            if pid == 0:
                self.has_children = True
                return
            self.tell(pid, status)
        self._loop.soon(self.reap)


def _ignore(number: int, frame: object) -> None:
    """Do nothing: a handler that exists is what makes the wake-up descriptor be written."""
