"""What is taken for an answer of a healthy server: it was written by a tenant's program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from sandpool.backends.base import Box
from sandpool.errors import DialFailed, Unhealthy
from sandpool.manager.health import look
from sandpool.models import HealthCheck

pytestmark = pytest.mark.anyio

CHECK = HealthCheck(kind="http", port=8080, path="/up")
WHOLE = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok"


class Stream:
    """A connection on which the other side says what it is made with, and closes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [*pieces, b""]
        self.is_closed = False

    async def receive(self) -> bytes:
        return self._pieces.pop(0)

    async def aclose(self) -> None:
        self.is_closed = True


class Server:
    """What there is of a box on whose port one such connection is made."""

    def __init__(self, *pieces: bytes) -> None:
        self.stream = Stream(pieces)
        self.asked = b""

    async def dial(self, port: int, first: bytes = b"") -> Stream:
        if port != CHECK.port:
            raise DialFailed(f"port {port}: Connection refused")
        self.asked += first
        return self.stream

    async def look(self) -> None:
        try:
            await look(cast("Box", self), CHECK)
        finally:
            assert self.stream.is_closed


async def test_a_server_is_asked_in_one_piece_and_its_connection_closed() -> None:
    server = Server(WHOLE)
    await server.look()
    assert server.asked == (
        b"GET /up HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: sandpool\r\n"
        b"Connection: close\r\n\r\n"
    )


async def test_an_answer_may_come_byte_by_byte() -> None:
    await Server(*(WHOLE[at : at + 1] for at in range(len(WHOLE)))).look()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 204 \r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 302 Found\nLocation: /elsewhere\n\n",
        b"HTTP/1.1 200 OK\r\nX-Long: begun\r\n\tand gone on\r\nEmpty:\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE,
        b"HTTP/1.1 200 OK\r\nX: \xe9\r\n\r\n",
    ],
)
async def test_a_good_answer_is_healthy(answer: bytes) -> None:
    await Server(answer).look()
    await Server(*(answer[at : at + 7] for at in range(0, len(answer), 7))).look()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "GET /up on port 8080 was answered 503"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n\r\n", "was answered 404"),
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nServer: x\r\n", "without an answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed"),
        (b"\x15\x03\x03\x00\x02", "malformed"),
        (b"HTTP/1.1 ok\r\n\r\n", "malformed"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "without an answer"),
        (b"HTTP/1.1 2000 High\r\n\r\n", "malformed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", "malformed"),
    ],
)
async def test_anything_else_is_not(answer: bytes, fault: str) -> None:
    with pytest.raises(Unhealthy, match=fault):
        await Server(answer).look()


@pytest.mark.parametrize(
    "endless", [b"X: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n x", b"a:" * 100]
)
async def test_a_head_without_end_is_given_up(endless: bytes) -> None:
    pieces = [b"HTTP/1.1 100 Continue\r\n", *[endless] * 70_000]
    with pytest.raises(Unhealthy):
        await Server(*pieces).look()


async def test_a_port_that_nobody_listens_on_is_not_healthy() -> None:
    health = CHECK.model_copy(update={"port": 81})
    with pytest.raises(Unhealthy, match="port 81: Connection refused"):
        await look(cast("Box", Server()), health)
