"""A way to a server that loses things: a proxy that decides what becomes of each answer."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

Fate = Literal["pass", "lose", "hold", "refuse", "gateway", "page", "strange"]
"""What becomes of a call.

Passed on and answered; its answer lost with the connection; its answer kept back; neither passed on
nor answered; not passed on and answered by the proxy, with a 502, a page or a problem of a code
that nobody knows.
"""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

_OWN_ANSWERS: dict[str, tuple[str, str, bytes]] = {
    "gateway": ("502 Bad Gateway", "text/html", b"<h1>no server</h1>"),
    "page": ("200 OK", "text/html", b"<h1>welcome</h1>"),
    "strange": (
        "418 Teapot",
        "application/problem+json",
        b'{"code": "from_the_future", "detail": "short and stout"}',
    ),
}


@dataclass(eq=False)
class Proxy:
    """The proxy's URL, what came through it, and what becomes of what comes next."""

    url: str = ""
    seen: list[str] = field(default_factory=list[str])
    """Method and path of each call."""
    decide: Callable[[str], Fate] = lambda _: "pass"
    held: anyio.Event = field(default_factory=anyio.Event)
    """Set once an answer is being kept back."""

    def fates(self, call: str, *fates: Fate) -> None:
        """Give the next calls whose method and path begin like this their fates."""
        left = list(fates)
        self.decide = lambda seen: left.pop(0) if left and seen.startswith(call) else "pass"

    def count(self, call: str) -> int:
        """Return how many calls began like this."""
        return sum(seen.startswith(call) for seen in self.seen)


@asynccontextmanager
async def between(server_url: str) -> AsyncGenerator[Proxy]:
    """Stand before a server for the length of a block."""
    server = urlsplit(server_url)
    assert server.hostname is not None
    assert server.port is not None
    host, port = server.hostname, server.port
    proxy = Proxy()

    async def serve(client: SocketStream) -> None:
        async with client:
            try:
                reader = BufferedByteReceiveStream(client)
                while await _serve_call(proxy, reader, client, host, port):
                    pass
            except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        proxy.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        group.start_soon(listener.serve, serve)
        yield proxy
        group.cancel_scope.cancel()


async def _serve_call(
    proxy: Proxy, reader: BufferedByteReceiveStream, client: SocketStream, host: str, port: int
) -> bool:
    head, body = await _message(reader)
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    call = f"{method} {path}"
    proxy.seen.append(call)
    fate = proxy.decide(call)
    if fate == "refuse":
        return False
    if fate in _OWN_ANSWERS:
        status, kind, content = _OWN_ANSWERS[fate]
        start = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}"
        await client.send(start.encode() + b"\r\n\r\n" + content)
        return True
    async with await anyio.connect_tcp(host, port) as server:
        await server.send(head + b"\r\n\r\n" + body)
        answer, content = await _message(BufferedByteReceiveStream(server))
    if fate == "lose":
        return False
    if fate == "hold":
        proxy.held.set()
        await reader.receive_exactly(1)
    await client.send(answer + b"\r\n\r\n" + content)
    return True


async def _message(stream: BufferedByteReceiveStream) -> tuple[bytes, bytes]:
    head = await stream.receive_until(b"\r\n\r\n", 65_536)
    length = _LENGTH.search(head)
    body = await stream.receive_exactly(int(length[1])) if length and int(length[1]) else b""
    return head, body
