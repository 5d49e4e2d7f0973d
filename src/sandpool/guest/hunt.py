"""Kills one run's whole tree and says when nothing of it is left.

Where nothing else lives in the sandbox, one kill(-1) does it, which the kernel delivers to every
process but us before it returns.  Else the processes are found by their tags (`kin.py`) and killed
one by one, in sweeps, until a sweep finds none; a tree that outruns the sweeps is ended, past
`_PATIENCE`, by kill(-1), and other runs die with it.

    H1  `kill(-1)` is called only while we are process 1: anywhere else it would kill the caller's
        whole session.
    H2  `done` is called exactly once, at most `_PATIENCE` + `_LAST_WAIT` after the start.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from . import processes
from .loop import monotonic

if TYPE_CHECKING:
    from typing import Callable

    from .kin import Kin
    from .loop import Loop
    from .reaper import Reaper
    from .spare import Spare

_PATIENCE = 0.8
_LAST_WAIT = 0.6
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.025


def kill_everything() -> None:
    """Kill every process of the sandbox but this one."""
    assert os.getpid() == 1  # Invariant H1
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Hunt:
    """The killing of one tree, or with `tag` None of everything."""

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        kin: Kin,
        spare: Spare,
        tag: int | None,
        done: Callable[[], None],
    ) -> None:
        """Begin; `done` is called when it is over, never before this returns."""
        self._loop = loop
        self._reaper = reaper
        self._kin = kin
        self._spare = spare
        self._tag = tag
        self._done = done
        self._doomed: list[int] | None = None
        """What was there when everything was killed; nothing else can be left of the tree."""
        self._pause = _FIRST_PAUSE
        now = monotonic()
        self._fallback_at = now + _PATIENCE
        self._give_up_at = now + _PATIENCE + _LAST_WAIT
        self._sweep()

    def _sweep(self) -> None:
        self._reaper.reap()
        now = monotonic()
        if self._doomed is None and (now >= self._fallback_at or self._has_sandbox_to_itself()):
            kill_everything()
            self._spare.doom()
            self._doomed = processes.pids()
        if now >= self._give_up_at:
            left = 0
        elif self._doomed is not None:
            left = sum(map(processes.is_alive, self._doomed))
        else:
            left = self._kill_tagged()
        if left:
            self._loop.after(self._pause, self._sweep)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            # What is dead still takes the place of a process until it has been reaped.
            self._reaper.reap()
            self._loop.soon(self._done)

    def _has_sandbox_to_itself(self) -> bool:
        return self._tag is None or self._kin.is_alone(self._tag)

    def _kill_tagged(self) -> int:
        """Kill what belongs to our tree, and return how many processes that was."""
        assert self._tag is not None
        count = 0
        for pid in processes.pids():
            count += self._kill_if_tagged(self._tag, pid)
        return count

    def _kill_if_tagged(self, tag: int, pid: int) -> bool:
        """Kill `pid` if it belongs to our tree; whether it did, and may live on for a moment."""
        try:
            if not self._kin.is_victim(tag, processes.tag_of(pid)):
                return False
            os.kill(pid, signal.SIGKILL)
            return processes.is_alive(pid)
        except ProcessLookupError:
            return False
