"""One HTTP request, passed on to a server in a sandbox, and its answer, passed back.

Both bodies stream: what one side does not take, the other is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskGroup
from starlette.types import Message, Receive, Scope, Send

from sandpool.errors import BadGateway, GatewayTimeout, RequestTimeout, SandpoolError
from sandpool.proxy.exchange import Head, HttpConnection
from sandpool.proxy.headers import (
    Headers,
    Place,
    body_framing,
    request_headers,
    response_headers,
)
from sandpool.server.addresses import Entry
from sandpool.server.departure import Departure

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that may be sent twice, if the first was not answered."""

_CORS = b"access-control-"


@dataclass(frozen=True, slots=True)
class Errand:
    """Where a request goes, and how."""

    entry: Entry
    port: int
    target: bytes
    """Path and query, as they were sent."""
    place: Place
    is_readable_by_own_page: bool
    """Whether a page of the same port may read the answer though its origin is another."""
    timeout: float
    idle_timeout: float
    """Seconds, as in `ServerSettings`."""


async def relay_http(errand: Errand, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request; raises `SandpoolError` as long as nothing of the answer has been sent.

    An answer that breaks off later, or is cut because the lease has ended, stays incomplete: the
    server then closes the client's connection.  A client that leaves ends its request.
    """
    await Departure(partial(_relay, errand))(scope, receive, send)


async def _relay(errand: Errand, scope: Scope, receive: Receive, send: Send) -> None:
    framing = body_framing(scope["headers"])
    relay = _Relay(errand, scope, receive, send, framing)
    try:
        with errand.entry.gate.visit():
            await relay.run()
    except SandpoolError:
        if not relay.has_begun:
            raise


class _Relay:
    """One request on its way.

    One deadline is for all of it, put off by every piece that moves in either direction.
    """

    def __init__(
        self, errand: Errand, scope: Scope, receive: Receive, send: Send, framing: Headers
    ) -> None:
        self._errand = errand
        self._method: str = scope["method"]
        self._headers = [*request_headers(scope["headers"], errand.place), *framing]
        self._has_body = bool(framing) and framing[0][1] != b"0"
        self._receive = receive
        self._send = send
        self._span = errand.timeout
        self._patience = anyio.CancelScope()
        self._awaits_client = False
        """Whether the client is to say something before the sandbox can."""
        self.has_begun = False
        """Whether anything of the answer has been sent."""

    async def run(self) -> None:
        failure: SandpoolError | None = None
        self._bump()
        with self._patience:
            if self._has_body:
                async with anyio.create_task_group() as group:
                    try:
                        await self._exchange(group)
                    except SandpoolError as error:
                        failure = error
                    group.cancel_scope.cancel()
            else:
                # A group, and a task in it, would be half of what we add to a small request.
                await self._exchange(None)
        if failure is not None:
            raise failure
        if self._patience.cancelled_caught:
            if self._awaits_client:
                raise RequestTimeout(f"no byte of the body came for {self._span:g} s")
            raise GatewayTimeout(f"nothing came from port {self._errand.port} for {self._span:g} s")

    def _bump(self) -> None:
        self._patience.deadline = anyio.current_time() + self._span

    async def _exchange(self, group: TaskGroup | None) -> None:
        """Ask, and answer; the group is for what passes on the request's body, if it has one."""
        connections, port = self._errand.entry.connections, self._errand.port
        may_repeat = self._method in _REPEATABLE and not self._has_body
        connection = await connections.take(port, may_repeat=may_repeat)
        try:
            await self._ask(connection)
            if group is not None:
                group.start_soon(self._follow, connection)
            try:
                head = await connection.read_head()
            except BadGateway:
                if not connection.is_used or connection.has_answered:
                    raise
                # It had been closed since its last request, as idle connections are.
                await connection.aclose()
                connection = await connections.connect(port)
                await self._ask(connection)
                head = await connection.read_head()
            await self._answer(connection, head)
        except BaseException:
            # Cancel: the client has left, the lease has ended, or the time is over.
            await connection.aclose()
            raise
        await connections.give_back(port, connection)

    async def _ask(self, connection: HttpConnection) -> None:
        await connection.send_head(
            self._method.encode(), self._errand.target, self._headers, ends=not self._has_body
        )

    async def _follow(self, connection: HttpConnection) -> None:
        """Pass the client's body on, or read on if nobody wants it, until the client has left."""
        while True:
            self._awaits_client = self._has_body
            message = await self._receive()
            self._awaits_client = False
            if message["type"] == "http.disconnect":
                return
            if self._has_body:
                try:
                    await self._pass_on(connection, message)
                except SandpoolError:
                    # The same ends the answer, if it has not come before.
                    self._has_body = False

    async def _pass_on(self, connection: HttpConnection, message: Message) -> None:
        self._bump()
        if body := message.get("body", b""):
            await connection.send_body(body)
        if not message.get("more_body", False):
            self._has_body = False
            await connection.end_body()
        self._bump()

    async def _answer(self, connection: HttpConnection, head: Head) -> None:
        self._span = self._errand.idle_timeout
        self._bump()
        headers = response_headers(head.headers, self._errand.place)
        if self._errand.is_readable_by_own_page:
            headers = _readable(headers)
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})
        while True:
            piece = await connection.read_body()
            is_last = connection.is_answered
            await self._send(
                {"type": "http.response.body", "body": piece, "more_body": not is_last}
            )
            if is_last:
                return
            self._bump()


def _readable(headers: Headers) -> Headers:
    kept = [(name, value) for name, value in headers if not name.startswith(_CORS)]
    return [
        *kept,
        (b"access-control-allow-origin", b"*"),
        (b"access-control-expose-headers", b"*"),
    ]
