"""One stateful interpreter as the guest sees it: its process, its line to it, and its cells' order.

    IDLE ─► BUSY ─► IDLE            a cell at a time, first come, first served
    IDLE, BUSY ─► ENDING ─► gone    closed, died, stuck past a timeout, or in breach of the protocol

Its process is the tenant's altogether: what comes over the control descriptor is checked, bounded,
and read only as fast as the host takes it.

    X1  The process id is used only until the process has been reaped (`_status` is None).
    X2  `_turn` is the one cell that may write output; it stays until its request has been answered.
    X3  Nothing of a context's tree is left when `on_gone` calls back, and its tag has been retired.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from typing import TYPE_CHECKING

from . import frames
from .loop import READ
from .refusal import Refusal
from .run import exit_report

if TYPE_CHECKING:
    from typing import Callable, Sequence

    from .guest import Guest
    from .loop import Timer
    from .outlet import Outlet
    from .turn import Turn

_READ_SIZE = 64 * 1024
_LAST_READS = 32
"""Reads after a death: as much as can have been on its way."""
_EOF_PATIENCE = 0.5
"""Seconds from the end of the control stream to the news of the process's death."""


class Context:
    """A process that runs cells."""

    def __init__(
        self,
        guest: Guest,
        name: str,
        tag: int,
        pid: int,
        control: int,
        outlets: Sequence[Outlet],
    ) -> None:
        """Watch over the process `pid`, which has just been forked."""
        self.guest = guest
        self.name = name
        self.outlets = outlets
        self.count = 0
        """Cells begun."""
        self.is_ending = False
        self._tag = tag
        self._pid = pid
        self._control = control
        self._status: int | None = None  # Invariant X1
        self._decoder = frames.Decoder(frozenset((frames.EVENT, frames.RESPONSE)))
        self._turn: Turn | None = None  # Invariant X2
        self._waiting: deque[Turn] = deque()
        self._why = ""
        self._is_hunted = False
        self._eof_timer: Timer | None = None
        self._on_gone: list[Callable[[], object]] = []
        os.set_blocking(control, False)
        guest.reaper.expect(pid, self._exited)
        guest.loop.watch(control, READ, self._readable)

    @property
    def is_busy(self) -> bool:
        """Whether a cell runs or waits."""
        return self._turn is not None

    def enter(self, turn: Turn) -> None:
        """Run a cell when those before it are over."""
        self._waiting.append(turn)
        self._advance()

    def withdraw(self, turn: Turn) -> None:
        """Forget a cell that has not begun."""
        self._waiting.remove(turn)

    def leave(self, turn: Turn) -> None:
        """Learn that the current cell's request has been answered."""
        assert turn is self._turn  # Invariant X2
        self._turn = None
        if self.is_ending:
            self._release()
            return
        for outlet in self.outlets:
            outlet.detach()
        # Not from here: the next one may be answered at once, and so on.
        self.guest.loop.soon(self._advance)

    def interrupt(self) -> None:
        """Send SIGINT to the process group, as a terminal and a notebook do."""
        if self._status is not None:
            return  # Invariant X1
        try:
            os.killpg(self._pid, signal.SIGINT)
        except ProcessLookupError:
            pass

    def end(self, why: str) -> None:
        """Kill it and everything that it started."""
        if self.is_ending:
            return
        self.is_ending = True
        self._why = why
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        self.guest.loop.unwatch(self._control)
        os.close(self._control)
        while self._waiting:
            self._waiting.popleft().refuse(not_found(self.name))
        self.guest.hunt(self._tag, self._hunted)

    def on_gone(self, callback: Callable[[], object]) -> None:
        """Call `callback` when nothing of it is left."""
        self._on_gone.append(callback)

    def _advance(self) -> None:
        if self._turn is not None or self.is_ending or not self._waiting:
            return
        self._turn = turn = self._waiting.popleft()
        self.count += 1
        for outlet in self.outlets:
            outlet.attach(turn.request, turn.max_output)
        turn.begin(self.count)
        packet = frames.encode_json(self.count, frames.REQUEST, {"path": turn.source.path})
        try:
            sent = os.write(self._control, packet)
        except OSError:
            # Nobody reads: it has died, or does not take part.
            sent = 0
        if sent != len(packet):
            self._breach("it did not take a cell")

    def _readable(self, events: int) -> None:
        connection = self.guest.connection
        if connection.is_congested:
            self.guest.loop.unwatch(self._control)
            connection.when_clear(self._listen)
            return
        self._read()

    def _listen(self) -> None:
        if not self.is_ending and self._eof_timer is None:
            self.guest.loop.watch(self._control, READ, self._readable)

    def _read(self) -> bool:
        """Take what has come; say whether there may be more."""
        try:
            data = os.read(self._control, _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._stop_listening()
            return False
        try:
            for number, kind, payload in self._decoder.feed(data):
                self._take(number, kind, payload)
        except frames.FrameError as error:
            self._breach(str(error))
        return not self.is_ending

    def _stop_listening(self) -> None:
        """Wait a moment for the news of a death, which comes after the end of the stream."""
        if self._eof_timer is None:
            self.guest.loop.unwatch(self._control)
            self._eof_timer = self.guest.loop.after(
                _EOF_PATIENCE, lambda: self._breach("it closed its control descriptor")
            )

    def _take(self, number: int, kind: int, payload: bytes) -> None:
        """Take one frame of the process.  Raises FrameError."""
        value = frames.decode_json(payload)
        turn = self._turn
        if turn is None or turn.has_ended or number != self.count:
            # What a thread shows between two cells is lost.
            if kind == frames.RESPONSE:
                raise frames.FrameError("it answered a cell that does not run")
        elif kind == frames.RESPONSE:
            turn.finish(value)
        elif value.get("begun") is True:
            turn.begun()
        else:
            turn.show(value)

    def _breach(self, what: str) -> None:
        self.end(f"the interpreter broke the protocol of contexts: {what}")

    def _exited(self, status: int) -> None:
        """Learn that the process has ended."""
        self._status = status
        if self.is_ending:
            return
        for _ in range(_LAST_READS):
            # What it said before is still true.
            if not self._read():
                break
        report = exit_report(status)
        if report["signal"] is not None:
            self.end(f"the interpreter was killed by signal {report['signal']}")
        else:
            self.end(f"the interpreter exited with status {report['exit_code']}")

    def _hunted(self) -> None:
        self._is_hunted = True
        self.guest.reaper.reap()
        # Beyond even SIGKILL, in the kernel; it dies whenever that returns.
        self._status = self._status if self._status is not None else signal.SIGKILL
        if self._turn is None:
            self._release()
        else:
            self._turn.abandon(self._why)  # and `leave` releases, now or when its output has gone

    def _release(self) -> None:
        if not self._is_hunted or self._turn is not None:
            return
        for outlet in self.outlets:
            outlet.close()
        self.guest.retire(self._tag)
        for callback in self._on_gone:
            callback()


def not_found(name: str) -> Refusal:
    """Return the refusal of a context that is not there, or not any more."""
    return Refusal("context_not_found", f"there is no context {name[:64]!r}")
