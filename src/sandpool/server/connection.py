"""One client's connection: what its parser says of it, and how long it may say nothing.

uvicorn bounds neither how long a request's head is, nor how long it takes to come, nor how long the
rest of a body that nobody wants is read, nor how many requests are read ahead; and it answers what
is no HTTP in plain text.  This closes such connections, and answers with problems as everything
else does.

    N1  A request's head is that of its head: nothing that comes after it is added to it.
    N2  A request is parsed when the one before it is over, and never in one piece with it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from sandpool.errors import (
    BadRequest,
    HeadTooLarge,
    NoCapacity,
    RequestTimeout,
    SandpoolError,
)
from sandpool.server.answers import refusal
from sandpool.server.gathering import Gathering

_LONGEST_HEAD = 64 * 1024
"""Bytes of a head that has not ended; what has is measured by `Framing`."""
_VERSIONS = ("1.0", "1.1")
_END_OF_HEAD = b"\r\n\r\n"
_OVERLAP = len(_END_OF_HEAD) - 1
_METHOD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)( ?)")
_LONGEST_METHOD = 1024
_PARSED = frozenset({
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT",
})  # fmt: skip
"""Methods that the parser is given as they are."""
_STAND_IN = b"POST"
"""What it is given for the others: it has a list of those that there are, and HTTP has none."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, bounded in size, in time and in number."""

    head_timeout = 20.0
    """Seconds in which a request's head has to come, and the body of one that was answered."""
    most = 4096
    """Connections at one time."""
    app: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Begin; called by uvicorn for each connection."""
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._unparsed = b""
        self._head_size = 0
        """Bytes of a head that has not ended."""
        self._method: str | None = None
        """The method of the request that is read, where the parser was given another."""
        self._next_method: str | None = None
        """The same of the request that it is about to be given."""
        self._is_head = False
        """Whether a request's head has begun and not ended."""
        self._is_whole = True
        """Whether the last request that has begun has ended."""
        self._is_switching = False
        """Whether the head that has just ended asks for another protocol."""
        self._tail = b""
        """The last of what was parsed."""
        self._body_left = 0
        """Bytes of a body that has said how long it is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections already."""
        self._direct = transport
        super().connection_made(cast("asyncio.Transport", Gathering(transport, self.loop)))
        if len(self.connections) > self.most:
            self._refuse(NoCapacity("this server has too many connections", retry_after=1.0))
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what has come; time runs while it is no whole head, or nobody wants it."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._unparsed += data
        self._parse()
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to what has come meanwhile, for which time begins to run."""
        cast("Gathering", self.transport).flush()
        super().on_response_complete()
        self._parse()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_watching()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head; called by the parser, as what follows."""
        super().on_message_begin()
        self._method, self._next_method = self._next_method, None
        self._is_head = True
        self._is_whole = False
        self._head_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after a body is none of its request's.  Invariant N1."""
        if self._is_head:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to work on a request, or do so after the one before it; `BadRequest`."""
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        body_length = _check_head(self.headers, version)
        self._is_head = False
        raw_path, _, query = self.url.partition(b"?")
        scope["http_version"] = version
        scope["method"] = self._method or parser.get_method().decode("ascii")
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["path"] = self.root_path + unquote(raw_path.decode("ascii"))
        scope["query_string"] = query
        opens_tunnel = scope["method"] == "CONNECT"
        self._is_switching = parser.should_upgrade() and not opens_tunnel
        if self._is_switching:
            return  # the parser stops here, and `_switch` goes on
        self._body_left = body_length
        self.cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            # What the parser takes for another protocol's is not parsed.
            keep_alive=version != "1.0" and parser.should_keep_alive() and not opens_tunnel,
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        if not self._is_switching:
            super().on_message_complete()
            self._is_whole = True

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket."""
        self._stop_watching()
        self.transport = self._direct
        super().handle_websocket_upgrade()

    def _parse(self) -> None:
        """Parse what has come, head by head, up to a request that has to wait.  Invariant N2."""
        data, at = self._unparsed, 0
        view = memoryview(data)
        while at < len(data) and not self._has_to_wait() and not self._has_left():
            if self._is_whole:
                begin = self._take_method(data, at)
                if begin is None:
                    break
                at = begin
            end = self._end_of_piece(data, at)
            self._feed(view[at:end])
            at = end
        self._unparsed = data[at:]
        if len(self._unparsed) > _LONGEST_HEAD:
            # Read on when the answer before it is given.
            self.flow.pause_reading()

    def _end_of_piece(self, data: bytes, at: int) -> int:
        """Return where what begins here ends at the latest, so that no request follows in it."""
        if not self._is_head and not self._is_whole and self._body_left > 0:
            return min(len(data), at + self._body_left)
        # Chunks end like a head, of which a part may have come before.
        end = (self._tail + data[at : at + _OVERLAP]).find(_END_OF_HEAD)
        if end >= 0:
            return at + end + len(_END_OF_HEAD) - len(self._tail)
        end = data.find(_END_OF_HEAD, at)
        return len(data) if end < 0 else end + len(_END_OF_HEAD)

    def _take_method(self, data: bytes, at: int) -> int | None:
        """Return where the parser is to begin with a request; None: when more has come."""
        found = _METHOD.match(data, at)
        if found is None or found[1] in _PARSED:
            return at
        if not found[2]:
            # It may go on, up to a length at which the parser may say what it thinks of it.
            is_all = found.end() == len(data)
            return None if is_all and len(found[1]) <= _LONGEST_METHOD else at
        self._next_method = found[1].decode("ascii")
        self._feed(memoryview(_STAND_IN))
        return found.end(1)

    def _feed(self, piece: memoryview) -> None:
        self._tail = (self._tail + piece[-_OVERLAP:])[-_OVERLAP:]
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._switch()
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            # Not what the parser says of it: that may hold a piece of the request.
            self._refuse(BadRequest("the request is not well-formed HTTP/1.1"))
        else:
            self._head_size += len(piece)
            if self._is_head and self._head_size > _LONGEST_HEAD:
                self._refuse(HeadTooLarge("the request line and the headers are too long"))

    def _switch(self) -> None:
        """Go on after the head of a request that asks for another protocol."""
        if not self._is_switching:
            return
        self._is_switching = False
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            # Java's client asks for HTTP/2 with its first request, of whatever kind.  The parser
            # would skip its body; so it is given the request as one that asks for nothing.
            method = self.parser.get_method()
            self._next_method = self._method
            self.parser = httptools.HttpRequestParser(self)
            self._feed(memoryview(_unswitched(method, self.url, self.headers)))

    def _has_left(self) -> bool:
        return self.transport.is_closing() or self.transport.get_protocol() is not self

    def _has_to_wait(self) -> bool:
        """Whether what follows is not this moment's to parse."""
        return self._is_whole and self._is_working()

    def _watch(self) -> None:
        """Let time run if, and only if, the client owes something."""
        # The application bounds the body of a request that it works on.
        if self._has_left() or self._is_working():
            self._stop_watching()
        elif self._is_idle():
            self._stop_watching()
            if self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_timeout, self._time_out)

    def _is_working(self) -> bool:
        # uvicorn says that there always is a cycle; before the first request there is none.
        return bool(self.cycle) and not self.cycle.response_complete

    def _is_idle(self) -> bool:
        return bool(self.cycle) and self._is_whole and not self._unparsed

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self._is_working():
            return
        self._refuse(RequestTimeout(f"no whole request came within {self.head_timeout:g} s"))

    def _refuse(self, error: SandpoolError) -> None:
        """Answer with a problem where an answer can still be given, and close."""
        if self.transport.is_closing():
            return
        # The rest of a body may be wrong, or late, after the request has been answered.
        has_answered = not self._is_head and not self._is_whole
        if self._is_working():
            has_answered = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not has_answered:
            problem = refusal(error)
            lines = [STATUS_LINE[problem.status]]
            lines += [b"%b: %b\r\n" % header for header in problem.headers]
            lines += [b"connection: close\r\n\r\n", problem.body]
            self.transport.write(b"".join(lines))
        self.transport.close()


def _check_head(headers: list[tuple[bytes, bytes]], version: str) -> int:
    """Raise `BadRequest` for what the parser lets through, and what follows it would doubt.

    Returns the length that the body has said it has; the parser has seen that it is one.
    """
    hosts = length = 0
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadRequest("a request names one host")
    if version not in _VERSIONS:
        raise BadRequest("the server speaks HTTP/1.1")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise BadRequest("a body comes in chunks, or whole")
    return length


def _unswitched(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a head without what asks for another protocol."""
    lines = [b"%b %b HTTP/1.1" % (method, url)]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip().lower() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token != b"upgrade")
        if name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + _END_OF_HEAD


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, of which a refusal is no fault that the log has to tell."""

    async def send(self, message: Any) -> None:
        """Send; a refusal that is whole is as good an end of the opening as an acceptance."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True


def bounded(*, head_timeout: float, most: int) -> type[Connection]:
    """Return a kind of connection with these bounds; uvicorn makes them without arguments."""
    bounds = {"head_timeout": head_timeout, "most": most}
    return type("BoundedConnection", (Connection,), bounds)
