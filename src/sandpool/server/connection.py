"""One client's connection: what its parser says of it, and how long it may say nothing.

uvicorn bounds neither how long a request's head takes to come nor how long the rest of a body that
nobody wants is read, and it answers what is no HTTP in plain text.  This closes such connections,
and answers with problems as everything else does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from sandpool.errors import (
    BadRequest,
    HeadTooLarge,
    NoCapacity,
    RequestTimeout,
    SandpoolError,
)
from sandpool.server.answers import problem_headers
from sandpool.server.gathering import Gathering
from sandpool.wire import problems

HEAD_TOO_LARGE = 431
"""What h11 suggests for a head that does not end."""


class Connection(H11Protocol):
    """uvicorn's connection, bounded in time and in number."""

    head_timeout = 20.0
    """Seconds in which a request's head has to come, and the body of one that was answered."""
    most = 4096
    """Connections at one time."""

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
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to what has come meanwhile, for which time begins to run."""
        cast("Gathering", self.transport).flush()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to the WebSocket."""
        self._stop_watching()
        self.transport = self._direct
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; called by uvicorn while it handles the parser's exception."""
        wrong = sys.exception()
        hint = wrong.error_status_hint if isinstance(wrong, h11.RemoteProtocolError) else 400
        if hint == HEAD_TOO_LARGE:
            self._refuse(HeadTooLarge("the request line and the headers are too long"))
        else:
            # Not what the parser says of it: that may hold a piece of the request.
            self._refuse(BadRequest("the request is not well-formed HTTP/1.1"))

    def _watch(self) -> None:
        """Let time run if, and only if, the client owes something."""
        has_left = self.transport.is_closing() or self.transport.get_protocol() is not self
        # The application bounds the body of a request that it works on.
        if has_left or self._is_working():
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
        return (
            bool(self.cycle)
            and self.conn.their_state is h11.IDLE
            and not self.conn.trailing_data[0]
        )

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
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(problems.encode(error)).encode()
            headers = [
                *problem_headers(error),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            status = problems.status_of(error)
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


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
