"""One output of a program, read as it comes and forwarded to the host, or thrown away.

States:

    FORWARDING ─► (credit or connection used up) PAUSED ─► FORWARDING
    FORWARDING ─► DISCARDING       past `max_output`, or while no request listens
    any ─► ENDED                   every writer has closed it

Invariants:

    O1  It is watched by the loop exactly while it is neither paused nor ended.
    O2  `drain` calls back exactly once, when all that was in the pipe at that moment has been
        passed on, whoever else still holds the other end.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

from . import frames
from .loop import READ

if TYPE_CHECKING:
    from typing import Callable

    from .connection import Connection
    from .loop import Loop
    from .request import Request

_INT = struct.Struct("i")
_ZERO = _INT.pack(0)


class Outlet:
    """The reading end of a pipe, or a terminal's master, whose other end a program writes."""

    __slots__ = (
        "_connection",
        "_drained",
        "_is_final",
        "_kind",
        "_left",
        "_loop",
        "_owed",
        "_request",
        "fd",
        "has_ended",
        "is_truncated",
        "on_end",
    )

    def __init__(self, loop: Loop, connection: Connection, fd: int, kind: int) -> None:
        """Read from `fd`, which is non-blocking, for frames of `kind`; discard until `attach`."""
        self._loop = loop
        self._connection = connection
        self.fd = fd
        self._kind = kind
        self._request: Request | None = None
        self._left: int | None = None
        """Bytes that may still be forwarded under `max_output`; None is no such bound."""
        self._owed = 0
        """Bytes that `drain` still waits for."""
        self._drained: Callable[[], None] | None = None
        self._is_final = False
        """Whether to drop what there is no credit for, instead of waiting for it."""
        self.has_ended = False
        self.is_truncated = False
        self.on_end: Callable[[], None] | None = None
        """Called once, when every writer has closed it."""
        loop.watch(fd, READ, self._ready)

    def attach(self, request: Request, max_output: int | None) -> None:
        """Forward to `request` from now on, at most `max_output` bytes."""
        self._request = request
        self._left = max_output
        self._is_final = False
        self.is_truncated = False

    def detach(self) -> None:
        """Discard from now on, for as long as anybody writes."""
        self._request = None
        self._drained = None
        self.resume()

    def resume(self) -> None:
        """Go on: there may be credit, or room on the connection."""
        if not self.has_ended:
            self._loop.watch(self.fd, READ, self._ready)

    def drain(self, callback: Callable[[], None], is_final: bool = False) -> None:
        """Call `callback` when what is in the pipe now has been passed on.

        With `is_final` what there is no credit for is dropped, so that the wait is bounded.
        """
        self._is_final = is_final
        self._owed = 0 if self.has_ended else self._available()
        if self._owed == 0:
            callback()
            return
        self._drained = callback
        self.resume()

    def close(self) -> None:
        """Close our end."""
        if not self.has_ended:
            self.has_ended = True
            self._loop.unwatch(self.fd)
            os.close(self.fd)

    def _available(self) -> int:
        size: int = _INT.unpack(fcntl.ioctl(self.fd, termios.FIONREAD, _ZERO))[0]
        return size

    def _ready(self, events: int) -> None:
        request = self._request
        size = self._room(request)
        if size == 0:
            # Whoever makes room calls `resume`.
            self._loop.unwatch(self.fd)
            return
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return
        except OSError:
            # EIO: how a terminal's master learns that the last program has closed it.
            data = b""
        if not data:
            self._end()
            return
        if request is not None:
            self._forward(request, data)
        if self._drained is not None:
            self._owed -= len(data)
            if self._owed <= 0:
                self._finish_drain()

    def _room(self, request: Request | None) -> int:
        """Return how many bytes may be read now; what is thrown away needs no room elsewhere."""
        if request is None or self._left == 0:
            return frames.CHUNK
        if self._connection.is_congested:
            self._connection.when_clear(self.resume)
            return 0
        if request.credit > 0:
            return min(frames.CHUNK, request.credit)
        if not self._is_final:
            # The request's `Activity.resume` wakes us.
            return 0
        self._left = 0
        return frames.CHUNK

    def _forward(self, request: Request, data: bytes) -> None:
        left = self._left
        if left is not None:
            if left < len(data):
                self.is_truncated = True
                data = data[:left]
            self._left = left - len(data)
        if data:
            request.stream(self._kind, data)

    def _end(self) -> None:
        self.close()
        self._finish_drain()
        if self.on_end is not None:
            self.on_end()

    def _finish_drain(self) -> None:
        callback, self._drained = self._drained, None
        if callback is not None:
            callback()
