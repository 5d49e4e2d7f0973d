"""What is taken for an answer of a healthy server: it was written by a tenant's program."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.base import Box
from sandpool.errors import DialFailed, Unhealthy
from sandpool.guest.frames import LONGEST_HEAD
from sandpool.manager.health import look, status_of
from sandpool.models import HealthCheck

pytestmark = pytest.mark.anyio

CHECK = HealthCheck(kind="http", port=8080, path="/up")
HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n"


class Server:
    """What there is of a box on whose port something gives this answer."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.asked = ""

    async def probe(self, port: int, question: str) -> bytes:
        if port != CHECK.port:
            raise DialFailed(f"port {port}: Connection refused")
        self.asked += question
        return self.head

    async def look(self) -> None:
        await look(cast("Box", self), CHECK)


async def test_a_server_is_asked_for_one_answer() -> None:
    server = Server(HEAD)
    await server.look()
    assert server.asked == (
        "GET /up HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: sandpool\r\n"
        "Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        b"HTTP/1.0 204 \r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 302 Found\nLocation: /elsewhere\n\n",
        b"HTTP/1.1 200 OK\r\nX-Long: begun\r\n\tand gone on\r\nEmpty:\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD,
        b"HTTP/1.1 200 OK\r\nX: \xe9\r\n\r\n",
    ],
)
async def test_a_good_answer_is_healthy(head: bytes) -> None:
    await Server(head).look()


@pytest.mark.parametrize(
    ("head", "fault"),
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
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 6_000, "longer than 32768 bytes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000, "longer than 32768 bytes"),
    ],
)
async def test_anything_else_is_not(head: bytes, fault: str) -> None:
    with pytest.raises(Unhealthy, match=fault):
        await Server(head[:LONGEST_HEAD]).look()


@given(st.binary() | st.binary().map(b"HTTP/1.1 ".__add__))
def test_any_bytes_have_a_status_or_are_refused(head: bytes) -> None:
    with suppress(ValueError):
        assert 200 <= status_of(head) <= 999


async def test_a_port_that_nobody_listens_on_is_not_healthy() -> None:
    health = CHECK.model_copy(update={"port": 81})
    with pytest.raises(Unhealthy, match="port 81: Connection refused"):
        await look(cast("Box", Server(HEAD)), health)
