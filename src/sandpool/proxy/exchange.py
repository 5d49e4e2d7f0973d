"""HTTP/1.1 over connections into a sandbox: every request and every answer is written anew.

Nothing is copied from one side to the other that frames a message, so that both sides agree on
where it ends, whatever either of them sent.  What is at the other end is hostile: its heads are
bounded, and the first thing that is not HTTP ends the connection.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import anyio
import h11

from sandpool.errors import BadGateway, DialFailed, SandpoolError
from sandpool.proxy.gate import Dial
from sandpool.proxy.headers import Headers, check_response
from sandpool.service import ByteStream

_LARGEST_HEAD = 64 * 1024
"""Bytes of an answer's status line and headers, or of a chunk's header."""

_LARGEST_STATUS = 599

_MOST_INTERIM = 16
"""Answers with a status below 200 that may come before the real one."""

_MOST_IDLE = 8
"""Connections to one port that are kept for the next request."""


_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins."""

    status: int
    headers: Headers


class HttpConnection:
    """One connection into a sandbox, for one request after another."""

    def __init__(self, stream: ByteStream) -> None:
        """Speak over `stream`, which is nobody else's."""
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self.is_used = False
        """Whether a request went over it before: its server may be about to close it."""
        self.has_answered = False
        """Whether anything has come of the present request's answer."""
        self.is_answered = False
        """Whether all of it has been read."""
        self._ahead: deque[_Event] = deque()

    @property
    def is_reusable(self) -> bool:
        """Whether the request and its answer are over, and another may follow."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        # An answer that nobody asked for would be taken for the next request's.
        early, _ = self._http.trailing_data
        return not early and not self._ahead

    def reuse(self) -> None:
        """Begin with the next request."""
        self._http.start_next_cycle()
        self.is_used = True
        self.has_answered = self.is_answered = False

    async def send_head(
        self, method: bytes, target: bytes, headers: Headers, *, ends: bool
    ) -> None:
        """Send a request's head, whose headers say how its body is framed; `ends`: it has none."""
        try:
            data = self._http.send(h11.Request(method=method, target=target, headers=headers))
            if ends:
                data = _both(data, self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise BadGateway(f"the request cannot be passed on: {error}") from None
        await self._send(data)

    async def send_body(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send(self._http.send(h11.Data(data=data)))

    async def end_body(self) -> None:
        """Say that this was all of the body; `BadGateway` if it was not what its head said."""
        await self._send(self._http.send(h11.EndOfMessage()))

    async def read_head(self) -> Head:
        """Wait for the answer's head; `BadGateway`."""
        for _ in range(_MOST_INTERIM):
            event = await self._next()
            if isinstance(event, h11.Response):
                headers = list(event.headers)
                check_response(headers)
                if event.status_code > _LARGEST_STATUS:
                    raise BadGateway(f"the sandbox's server answered {event.status_code}")
                return Head(event.status_code, headers)
            if not isinstance(event, h11.InformationalResponse):
                raise BadGateway("the sandbox's server closed the connection without an answer")
        raise BadGateway("the sandbox's server sent interim answers without end")

    async def read_body(self) -> bytes:
        """Wait for the next piece of the answer's body; `b""` at its end, `BadGateway`.

        `is_answered` is set together with the last piece, if its end has come with it.
        """
        while not self.is_answered:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                self.is_answered = True
            elif not isinstance(event, h11.Data):
                raise BadGateway("the sandbox's server closed the connection in its answer")
            elif event.data:
                self._look_ahead()
                return bytes(event.data)
        return b""

    def _look_ahead(self) -> None:
        event = self._parse()
        if isinstance(event, h11.EndOfMessage):
            self.is_answered = True
        elif event is not h11.NEED_DATA:
            self._ahead.append(event)

    async def aclose(self) -> None:
        """Close it: shielded, and bounded by the stream."""
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()

    async def _next(self) -> _Event:
        if self._ahead:
            return self._ahead.popleft()
        while (event := self._parse()) is h11.NEED_DATA:
            try:
                data = await self._stream.receive()
            except OSError:
                data = b""
            self.has_answered = self.has_answered or bool(data)
            self._http.receive_data(data)
        return event

    def _parse(self) -> _Event:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise BadGateway(f"the sandbox's server does not speak HTTP: {error}") from None

    async def _send(self, data: bytes | None) -> None:
        if data:
            try:
                await self._stream.send(data)
            except SandpoolError:
                raise
            except OSError:
                # Its answer may have come before it closed; whoever reads that will know.
                return


def _both(first: bytes | None, second: bytes | None) -> bytes:
    return (first or b"") + (second or b"")


@dataclass(slots=True)
class Connections:
    """The connections to the ports of one sandbox, for the length of one lease."""

    dial: Dial
    _idle: dict[int, list[HttpConnection]] = field(default_factory=dict[int, list[HttpConnection]])

    async def take(self, port: int, *, may_repeat: bool) -> HttpConnection:
        """Return a connection for one request; raises what dialling raises.

        `may_repeat` says that the request can be sent again if the connection turns out to have
        been closed meanwhile; any other gets a new one.
        """
        idle = self._idle.get(port)
        if idle and may_repeat:
            connection = idle.pop()
            connection.reuse()
            return connection
        return await self.connect(port)

    async def connect(self, port: int) -> HttpConnection:
        """Return a new connection; raises what dialling raises."""
        try:
            return HttpConnection(await self.dial(port))
        except SandpoolError:
            raise
        except OSError as error:
            raise DialFailed(f"port {port}: {error}") from error

    async def give_back(self, port: int, connection: HttpConnection) -> None:
        """Keep a connection whose request is over, or close it."""
        idle = self._idle.setdefault(port, [])
        if connection.is_reusable and len(idle) < _MOST_IDLE:
            idle.append(connection)
        else:
            await connection.aclose()

    async def aclose(self) -> None:
        """Close those that are kept."""
        while self._idle:
            _, idle = self._idle.popitem()
            for connection in idle:
                await connection.aclose()
