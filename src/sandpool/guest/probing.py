"""One question to a server inside the sandbox, by which the host looks whether it is healthy.

    ASKING ─► LISTENING ─► answered ─► DRAINING
       └──────────┴──────► refused, or cancelled

Of the answer, that is its head: what comes before the first empty line, and the interim heads of
HTTP/1 before that.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from . import frames
from .dialing import failed, open_socket
from .loop import READ, WRITE
from .request import Activity

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .loop import Timer
    from .request import Request

_PIECE = 64 * 1024

_LINGER = 1.0
"""Seconds for which the rest of an answer is read: a server should not fail at saying it."""
_MOST_RESTS = 16
"""Pieces of such a rest."""


def probe(guest: Guest, request: Request, fields: Fields) -> None:
    """Connect to a port on the sandbox's loopback, ask, and return the head of the answer."""
    port = fields.integer("port", low=1, high=65535)
    question = fields.text("question")
    fields.finish()
    connecting = open_socket(socket.AF_INET)
    connecting.connect_ex(("127.0.0.1", port))
    # Whether there is a connection is what the first try to use it tells.
    _Probe(guest, request, port, connecting, question.encode("utf-8", "replace"))


class _Probe(Activity):
    """One question."""

    __slots__ = (
        "_answer", "_guest", "_port", "_request", "_rests", "_socket", "_timer", "_unsaid"
    )  # fmt: skip

    def __init__(
        self,
        guest: Guest,
        request: Request,
        port: int,
        connecting: socket.socket,
        question: bytes,
    ) -> None:
        self._guest = guest
        self._request = request
        self._port = port
        self._socket = connecting
        self._unsaid = question
        self._answer = b""
        self._rests = _MOST_RESTS
        self._timer: Timer | None = None
        request.activity = self
        self._ask(WRITE)

    def cancel(self, request: Request) -> None:
        """Close the connection."""
        self._close()
        super().cancel(request)

    def _ask(self, events: int) -> None:
        try:
            sent = self._socket.send(self._unsaid)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                self._close()
                self._request.refuse(failed(self._port, error.errno or 0))
                return
            # It was connected; what it said before it closed is still there to be read.
            sent = len(self._unsaid)
        self._unsaid = self._unsaid[sent:]
        loop, fd = self._guest.loop, self._socket.fileno()
        if self._unsaid:
            loop.watch(fd, WRITE, self._ask)
        else:
            loop.watch(fd, READ, self._listen)

    def _listen(self, events: int) -> None:
        data = self._receive()
        if data is None:
            return
        self._answer += data
        end = head_end(self._answer)
        if data and end < 0 and len(self._answer) < frames.LONGEST_HEAD:
            return
        head = self._answer[: frames.LONGEST_HEAD if end < 0 else min(end, frames.LONGEST_HEAD)]
        self._request.respond({"head": head.decode("latin-1")})
        if data:
            loop = self._guest.loop
            loop.watch(self._socket.fileno(), READ, self._drain)
            self._timer = loop.after(_LINGER, self._close)
        else:
            self._close()

    def _drain(self, events: int) -> None:
        data = self._receive()
        self._rests -= 1
        if data == b"" or self._rests <= 0:
            self._close()

    def _receive(self) -> bytes | None:
        """Return what has come; `b""`: it has ended, and None: nothing has."""
        try:
            return self._socket.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._guest.loop.unwatch(self._socket.fileno())
            self._socket.close()


def head_end(answer: bytes) -> int:
    """Return where the head of an answer ends, after its empty line; -1 if that has not come.

    What is no HTTP has no head to wait for: then that is all of it.
    """
    if answer[:5] != b"HTTP/"[: len(answer)]:
        return len(answer)
    begin = 0
    while True:
        ends = [
            at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := answer.find(mark, begin)) >= 0
        ]
        if not ends:
            return -1
        status = answer[begin : begin + 12]
        is_interim = status[:7] == b"HTTP/1." and status[8:10] == b" 1" and status[9:] != b"101"
        if not is_interim:
            return min(ends)
        begin = min(ends)
