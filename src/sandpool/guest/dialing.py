"""Connections to ports inside the sandbox, relayed to the host.

    CONNECTING ─► OPEN ─► both directions ended ─► answered
        └──────────┴────► cancelled

Each direction ends by itself: a host that has said all may still listen, and so may the program.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from . import frames
from .inlet import Inlet
from .loop import WRITE
from .outlet import Outlet
from .refusal import Refusal, bad_request, no_room
from .request import Activity

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request

_ADDRESSES = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1"),
    "localhost": (socket.AF_INET, "127.0.0.1"),
    "::1": (socket.AF_INET6, "::1"),
}


def dial(guest: Guest, request: Request, fields: Fields) -> None:
    """Connect to a port on the sandbox's loopback."""
    port = fields.integer("port", low=1, high=65535)
    host = fields.text("host", "127.0.0.1")
    fields.finish()
    if host not in _ADDRESSES:
        raise bad_request(f"only {', '.join(_ADDRESSES)} can be dialled")
    family, address = _ADDRESSES[host]
    connecting = open_socket(family)
    number = connecting.connect_ex((address, port))
    if number == errno.EINPROGRESS:
        # On the loopback it has come to an end by now, which only a second call tells.
        number = connecting.connect_ex((address, port))
    if number not in (0, errno.EALREADY):
        connecting.close()
        raise failed(port, number)
    _Relay(guest, request, port, connecting, is_connected=number == 0)


def open_socket(family: int) -> socket.socket:
    """Return a socket that never blocks; `no_room`."""
    try:
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise no_room(error) from error


def failed(port: int, number: int) -> Refusal:
    """Return the refusal for a port that cannot be connected to, because of this errno."""
    return Refusal("dial_failed", f"port {port}: {os.strerror(number)}")


class _Relay(Activity):
    """One connection."""

    def __init__(
        self,
        guest: Guest,
        request: Request,
        port: int,
        connecting: socket.socket,
        is_connected: bool,
    ) -> None:
        self._guest = guest
        self._request = request
        self._port = port
        self._socket = connecting
        self._outlet: Outlet | None = None
        self._inlet: Inlet | None = None
        self._open_directions = 2
        request.activity = self
        if is_connected:
            self._begin()
        else:
            guest.loop.watch(connecting.fileno(), WRITE, self._connected)

    def _connected(self, events: int) -> None:
        self._guest.loop.unwatch(self._socket.fileno())
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._socket.close()
            self._request.refuse(failed(self._port, number))
        else:
            self._begin()

    def _begin(self) -> None:
        request, loop = self._request, self._guest.loop
        fd = self._socket.fileno()
        # Each direction has a descriptor of its own: the loop knows one watcher for each.
        self._outlet = Outlet(loop, self._guest.connection, os.dup(fd), frames.DATA)
        self._outlet.on_end = self._program_ended
        self._outlet.attach(request, None)
        self._inlet = Inlet(loop, fd, self._host_ended)
        request.event({"connected": True})

    def data(self, request: Request, payload: bytes) -> None:
        """Pass bytes on to the program; the host sends none before it knows that there is one."""
        if self._inlet is not None:
            self._inlet.feed(request, payload)

    def eof(self, request: Request) -> None:
        """End our side after what is still on its way."""
        if self._inlet is not None:
            self._inlet.end()

    def resume(self, request: Request) -> None:
        """Go on reading."""
        if self._outlet is not None:
            self._outlet.resume()

    def cancel(self, request: Request) -> None:
        """Close both sides."""
        if self._outlet is None or self._inlet is None:
            self._guest.loop.unwatch(self._socket.fileno())
        else:
            self._outlet.close()
            self._open_directions = 0
            self._inlet.close()
        self._socket.close()
        super().cancel(request)

    def _program_ended(self) -> None:
        self._request.end_stream()
        self._end_direction()

    def _host_ended(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the program has gone already
        self._end_direction()

    def _end_direction(self) -> None:
        self._open_directions -= 1
        if self._open_directions == 0 and self._request.is_open:
            self._socket.close()
            self._request.respond({})
