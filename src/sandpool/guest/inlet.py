"""Bytes from the host on their way into a program, a terminal or a socket.

Invariants:

    I1  `_waiting` holds at most what the host has credit for: frames.INITIAL_CREDIT.
    I2  Credit goes back to the host only for bytes that have been written, or thrown away because
        nobody reads them.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from .loop import WRITE

if TYPE_CHECKING:
    from typing import Callable

    from .loop import Loop
    from .request import Request


class Inlet:
    """A writer that never blocks."""

    __slots__ = ("_fd", "_finish", "_is_ending", "_is_open", "_loop", "_waiting")

    def __init__(self, loop: Loop, fd: int, finish: Callable[[], None]) -> None:
        """Write to `fd`, which is non-blocking; `finish` is called once, after the last byte."""
        self._loop = loop
        self._fd = fd
        self._finish = finish
        self._is_open = True
        self._is_ending = False
        self._waiting: deque[tuple[Request, bytes]] = deque()  # Invariant I1

    def feed(self, request: Request, data: bytes) -> None:
        """Write `data` as soon as the reader takes it."""
        if not self._is_open or self._is_ending:
            request.consumed(len(data))
            return
        self._waiting.append((request, data))
        if len(self._waiting) == 1:
            self._write(0)

    def end(self) -> None:
        """Finish after what is waiting."""
        self._is_ending = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Finish now; what is waiting is thrown away."""
        if self._is_open:
            self._is_open = False
            self._loop.unwatch(self._fd)
            while self._waiting:
                request, data = self._waiting.popleft()
                request.consumed(len(data))
            self._finish()

    def _write(self, events: int) -> None:
        while self._waiting:
            request, data = self._waiting[0]
            try:
                count = os.write(self._fd, data)
            except BlockingIOError:
                self._loop.watch(self._fd, WRITE, self._write)
                return
            except OSError:
                # Nobody reads any more: the program's business, not the host's.
                self.close()
                return
            request.consumed(count)
            if count < len(data):
                self._waiting[0] = request, data[count:]
            else:
                self._waiting.popleft()
        if self._is_ending:
            self.close()
        else:
            self._loop.unwatch(self._fd)
