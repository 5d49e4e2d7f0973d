"""A context's end of its line to the guest, and the SIGINT that comes beside it.

The frames are those of `frames.py`, with a cell's number for a request's:

    guest -> context   REQUEST {"path"}: run the code in this file
    context -> guest   EVENT {"begun": true}: the cell can be interrupted from here on
                       EVENT {"display", "result"}, as the guest passes it on
                       RESPONSE {"status", "error"?}: all output of the cell has been written

    C1  Frames go out whole: a KeyboardInterrupt is never raised while one is being written.
    C2  In a process forked by a tenant's code the channel is closed, and sending does nothing.
"""

from __future__ import annotations

import json
import os
import signal
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any

from . import frames

if TYPE_CHECKING:
    from types import FrameType
    from typing import Callable

_READ_SIZE = 4096


class Channel:
    """Frames from and to the guest, over one blocking descriptor."""

    def __init__(self, fd: int) -> None:
        """Speak over `fd` in this process, and in no fork of it."""
        self._fd = fd
        self._decoder = frames.Decoder(frozenset((frames.REQUEST,)))
        self._lock = allocate_lock()
        self._number = 0
        os.register_at_fork(after_in_child=self._abandon)

    @property
    def is_abandoned(self) -> bool:
        """Whether this process is a fork of the context's.  Invariant C2."""
        return self._fd < 0

    def _abandon(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def receive(self) -> tuple[int, dict[str, Any]]:
        """Wait for the next cell; return its number and what the guest says of it."""
        while True:
            data = os.read(self._fd, _READ_SIZE)
            if not data:
                raise EOFError("the guest has gone")
            for number, _, payload in self._decoder.feed(data):
                # One at a time: the guest waits for each answer.
                self._number = number
                return number, frames.decode_json(payload)

    def event(self, value: dict[str, Any]) -> None:
        """Send an EVENT of the current cell; from a thread between cells it is of no cell."""
        self._send(frames.EVENT, value)

    def respond(self, value: dict[str, Any]) -> None:
        """End the current cell."""
        self._send(frames.RESPONSE, value)

    def _send(self, kind: int, value: dict[str, Any]) -> None:
        if self.is_abandoned:
            return
        packet = frames.encode(self._number, kind, json.dumps(value).encode("ascii"))
        with self._lock:
            while packet:
                packet = packet[os.write(self._fd, packet) :]


class Interrupts:
    """Turns SIGINT into a KeyboardInterrupt in a tenant's code, and nowhere else."""

    def __init__(self) -> None:
        """Begin with nothing to interrupt."""
        self._is_pending = False
        self._is_running = False

    def begin(self) -> None:
        """Listen anew: what came until now was for an earlier cell."""
        signal.signal(signal.SIGINT, self._handle)
        self._is_pending = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_ours = frame is None or frame.f_globals.get("__package__") == __package__
        if is_ours or not self._is_running:
            # Invariant C1.  `check` raises it as soon as that breaks nothing.
            self._is_pending = True
        else:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the KeyboardInterrupt that came at a bad moment."""
        if self._is_pending and self._is_running:
            self._is_pending = False
            raise KeyboardInterrupt

    def attempt(self, work: Callable[[], None]) -> BaseException | None:
        """Do what may run a tenant's code; return what it raised."""
        failure: BaseException | None = None
        self._is_running = True
        try:
            self.check()
            work()
        except BaseException as error:  # noqa: BLE001 (the boundary of the tenant's code)
            failure = error
        self._is_running = False
        return failure
