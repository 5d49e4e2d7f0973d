"""`FakePorts`: what listens inside a `FakeBox`, and connections to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from sandpool.errors import DialFailed

_END_OF_HEAD = b"\r\n\r\n"


@dataclass(slots=True, eq=False)
class FakeServer:
    """Answers every request of HTTP/1 on one port in the same way.  Tests may change how."""

    port: int
    status: int = 200
    body: bytes = b"hello\n"
    hangs: bool = False
    """Whether it takes requests and answers none."""
    requests: list[str] = field(default_factory=list[str])
    """The request lines that came."""

    def answer(self, head: bytes) -> bytes:
        """Return the answer to a request."""
        self.requests.append(head.split(b"\r\n", 1)[0].decode("latin-1"))
        return (
            f"HTTP/1.1 {self.status} Fake\r\nContent-Length: {len(self.body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode() + self.body


class FakePorts:
    """The ports of one box."""

    def __init__(self) -> None:
        """Begin with nothing that listens."""
        self._servers: dict[int, FakeServer] = {}

    def listen(self, port: int) -> FakeServer:
        """Begin to listen; `OSError` if something does already."""
        if port in self._servers:
            raise OSError(f"port {port} is in use")
        server = self._servers[port] = FakeServer(port)
        return server

    def close(self, port: int) -> None:
        """Listen no more; no effect if nothing does."""
        self._servers.pop(port, None)

    def server(self, port: int) -> FakeServer:
        """Return what listens; `DialFailed` if nothing does."""
        if port not in self._servers:
            raise DialFailed(f"nothing listens on port {port}")
        return self._servers[port]

    async def probe(self, port: int, question: str) -> bytes:
        """Return the head of an answer; `DialFailed` if nothing listens."""
        stream = FakeStream(self.server(port))
        await stream.send(question.encode())
        head, end, _ = (await stream.receive()).partition(_END_OF_HEAD)
        return head + end


class FakeStream:
    """One connection to a `FakeServer`."""

    def __init__(self, server: FakeServer) -> None:
        """Connect."""
        self._server = server
        self._asked = bytearray()
        self._answer = bytearray()
        self._changed = anyio.Event()
        self._is_over = False

    async def receive(self) -> bytes:
        """Return the answer once there has been a request; `b""` after it."""
        await anyio.lowlevel.checkpoint()
        while not self._answer and not self._is_over:
            await self._changed.wait()
        data = bytes(self._answer)
        self._answer.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Add to the request."""
        await anyio.lowlevel.checkpoint()
        self._asked += data
        if _END_OF_HEAD in self._asked and not self._server.hangs and not self._is_over:
            self._answer += self._server.answer(bytes(self._asked))
            self._end()

    async def send_eof(self) -> None:
        """Change nothing: requests here end with their head."""
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both sides."""
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._changed.set()
