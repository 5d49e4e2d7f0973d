"""The outermost layer: requests that could be read in two ways, and heads that are too much."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.errors import BadRequest, HeadTooLarge, SandpoolError
from sandpool.server.answers import send_problem

_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
_MOST_HEADERS = 128
_LONGEST_HEAD = 64 * 1024
_LONGEST_TARGET = 16 * 1024
"""Bytes."""


class Framing:
    """A layer that passes on what can only be meant in one way."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it and end its connection."""
        if scope["type"] in ("http", "websocket"):
            try:
                check_head(scope)
            except SandpoolError as error:
                # What follows on such a connection may be a request or a body.
                await send_problem(scope, _closing(send), error)
                return
        await self._app(scope, receive, send)


def check_head(scope: Scope) -> None:
    """Raise `BadRequest` for a body of two lengths, and `HeadTooLarge`."""
    if scope.get("http_version", "1.1") not in _VERSIONS:
        raise BadRequest("the server speaks HTTP/1.1")
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    if target > _LONGEST_TARGET:
        raise HeadTooLarge(f"the request's target is longer than {_LONGEST_TARGET} bytes")
    if len(headers) > _MOST_HEADERS:
        raise HeadTooLarge(f"the request has more than {_MOST_HEADERS} headers")
    size = 0
    has_length = has_coding = False
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-length":
            has_length = True
        elif name == b"transfer-encoding":
            has_coding = True
    if size > _LONGEST_HEAD:
        raise HeadTooLarge(f"the request's headers are longer than {_LONGEST_HEAD} bytes")
    if has_length and has_coding:
        raise BadRequest("a body has one length: Content-Length or Transfer-Encoding, not both")


def has_body(scope: Scope) -> bool:
    """Whether the request's head announces a body; without, HTTP/1.1 has none."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def _closing(send: Send) -> Send:
    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last
