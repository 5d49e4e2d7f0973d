"""Bounds on the bodies of requests: how long they are, and how long they take to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.errors import PayloadTooLarge, RequestTimeout, SandpoolError
from sandpool.server.answers import send_problem
from sandpool.server.framing import has_body


class Bodies:
    """A layer that ends a request whose body is too long or too slow."""

    def __init__(self, app: ASGIApp, most: Callable[[Scope], int], timeout: float) -> None:
        """Bound bodies to `most(scope)` bytes, with `timeout` seconds for each piece."""
        self._app = app
        self._most = most
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body watched."""
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        most = self._most(scope)
        if _declared(scope) > most:
            await send_problem(scope, send, _too_large(most))
            return
        body = _Body(receive, send, scope, most, self._timeout)
        await self._app(scope, body.receive, body.send)


class _Body:
    """One request's body, and the answer if it turns out to be a bad one.

    What a route makes of an error while it reads is its framework's affair; the answer that is sent
    is the one that names the error.
    """

    def __init__(
        self, receive: Receive, send: Send, scope: Scope, most: int, timeout: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._scope = scope
        self._most = most
        self._timeout = timeout
        self._received = 0
        self._is_whole = False
        self._error: SandpoolError | None = None
        self._has_answered = False

    async def receive(self) -> Message:
        """Return the next piece; raises once the body is out of bounds."""
        if self._is_whole:
            return await self._receive()
        try:
            # Half as dear as anyio's, and there are few calls without a body.
            async with asyncio.timeout(self._timeout):
                message = await self._receive()
        except TimeoutError:
            late = RequestTimeout(f"no byte of the body came for {self._timeout:g} s")
            raise self._fail(late) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._received > self._most:
                raise self._fail(_too_large(self._most))
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, or all of another one."""
        if self._error is None:
            await self._send(message)
        elif message["type"] == "http.response.start" and not self._has_answered:
            self._has_answered = True
            await send_problem(self._scope, self._send, self._error)

    def _fail(self, error: SandpoolError) -> SandpoolError:
        self._error = error
        return error


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that has been read before."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _declared(scope: Scope) -> int:
    """Return the length that the request names; the HTTP parser has checked that it is one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than the {most} bytes that this call takes")
