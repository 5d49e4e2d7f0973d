"""A connection: which requests an application gets of the bytes that come, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from sandpool.server.connection import Connection

pytestmark = pytest.mark.anyio

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: here\r\nX-A:  b \r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nab\r\n\r\ncdef"
CHUNKS = (
    b"PUT /c HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=y\r\n\r\n\r\n\r\n0\r\nHost: elsewhere\r\nAuthorization: Bearer x\r\n\r\n"
)
LAST = b"GET /last HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


class Socket(asyncio.Transport):
    """The other end of a connection that is in nobody's kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False
        self.is_paused = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 80) if name in ("sockname", "peername") else default

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@dataclass
class Seen:
    """What an application was asked."""

    requests: list[tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes]] = field(
        default_factory=list[tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes]]
    )
    left: list[str] = field(default_factory=list[str])
    """The paths of requests whose client has left."""


class Place:
    """A connection to an application that answers with the path, once it may."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.may_answer = anyio.Event()
        self.may_answer.set()
        self.socket = Socket()
        config = uvicorn.Config(
            self._answer, interface="asgi3", log_config=None, lifespan="off", proxy_headers=False
        )
        self.connection = Connection(config, ServerState(), {})
        self.socket.protocol = self.connection
        self.connection.connection_made(self.socket)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body"):
            message = cast("dict[str, Any]", await receive())
            body += message.get("body", b"")
        if message["type"] == "http.disconnect":
            self.seen.left.append(scope["path"])
            return
        await self.may_answer.wait()
        # As late as may be: what comes after a head must not have changed it.
        headers = sorted(scope["headers"])
        self.seen.requests.append(
            (scope["method"], scope["path"], scope["query_string"], headers, body)
        )
        answer = scope["raw_path"]
        length = str(len(answer)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    def statuses(self) -> list[int]:
        lines = self.socket.sent.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]


@asynccontextmanager
async def a_place() -> AsyncGenerator[Place]:
    place = Place()
    try:
        yield place
    finally:
        place.may_answer.set()
        place.connection.connection_lost(None)
        await anyio.wait_all_tasks_blocked()


EXPECTED = [
    ("GET", "/a b", b"c=d", [(b"host", b"here"), (b"x-a", b"b")], b""),
    ("POST", "/p", b"", [(b"content-length", b"10"), (b"host", b"here")], b"ab\r\n\r\ncdef"),
    (
        "PUT",
        "/c",
        b"",
        [(b"host", b"here"), (b"transfer-encoding", b"chunked")],
        b"abc\r\n\r\n",
    ),
    ("BREW", "/pot", b"", [(b"content-length", b"3"), (b"host", b"here")], b"tea"),
    ("GET", "/last", b"", [(b"connection", b"close"), (b"host", b"here")], b""),
]
BREW = b"BREW /pot HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\ntea"
ALL = GET + POST + CHUNKS + BREW + LAST


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, len(ALL)), max_size=8).map(sorted), at_once=st.booleans())
def test_wherever_packets_are_cut_the_requests_are_the_same(cuts: list[int], at_once: bool) -> None:
    async def deliver() -> None:
        async with a_place() as place:
            for begin, end in zip([0, *cuts], [*cuts, len(ALL)], strict=True):
                if begin < end:
                    place.connection.data_received(ALL[begin:end])
                if not at_once:
                    await anyio.wait_all_tasks_blocked()
            await anyio.wait_all_tasks_blocked()
            assert place.seen.requests == EXPECTED
            assert place.statuses() == [200] * 5
            assert place.socket.is_closed

    asyncio.run(deliver())


async def test_what_follows_the_last_request_is_nobodys() -> None:
    async with a_place() as place:
        place.connection.data_received(LAST + GET)
        await anyio.wait_all_tasks_blocked()
        assert [request[1] for request in place.seen.requests] == ["/last"]
        assert place.socket.is_closed


async def test_requests_are_not_read_far_ahead_of_their_answers() -> None:
    async with a_place() as place:
        place.may_answer = anyio.Event()
        place.connection.data_received(GET * 2000)
        await anyio.wait_all_tasks_blocked()
        assert len(place.connection.tasks) == 1
        assert not place.connection.pipeline
        # The application's look for a body lets more come, once.
        place.connection.data_received(GET)
        assert place.socket.is_paused
        place.may_answer.set()
        await anyio.wait_all_tasks_blocked()
        assert len(place.seen.requests) == 2001
        assert not place.socket.is_paused


@pytest.mark.parametrize("before", [GET, POST, CHUNKS])
async def test_what_is_wrong_is_told_after_the_answers_before_it(before: bytes) -> None:
    async with a_place() as place:
        place.may_answer = anyio.Event()
        # One that is behind a body comes in one piece with it.
        place.connection.data_received(before[:-3])
        place.connection.data_received(before[-3:] + b"GET / HTTP/1.1\r\nA b\r\n\r\n" + GET)
        await anyio.wait_all_tasks_blocked()
        assert place.statuses() == []
        place.may_answer.set()
        await anyio.wait_all_tasks_blocked()
        assert place.statuses() == [200, 400]
        assert place.socket.is_closed
        assert len(place.seen.requests) == 1


async def test_a_body_that_is_wrong_ends_its_request() -> None:
    async with a_place() as place:
        place.connection.data_received(CHUNKS[: CHUNKS.index(b"3\r\n")] + b"no number\r\n")
        await anyio.wait_all_tasks_blocked()
        assert place.statuses() == [400]
        assert place.socket.is_closed
        assert place.seen.left == ["/c"]


async def test_a_client_that_leaves_has_left_all_its_requests() -> None:
    async with a_place() as place:
        place.may_answer = anyio.Event()
        place.connection.data_received(POST[:-1])
        place.connection.data_received(POST[-1:] + CHUNKS[:-1])
        await anyio.wait_all_tasks_blocked()
        place.connection.connection_lost(None)
        place.may_answer.set()
        await anyio.wait_all_tasks_blocked()
        assert place.statuses() == []


SWITCH = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"


@pytest.mark.parametrize("asking", [GET, POST, CHUNKS])
async def test_a_request_that_asks_for_another_protocol_is_served_in_this_one(
    asking: bytes,
) -> None:
    line, _, rest = asking.partition(b"\r\n")
    async with a_place() as place:
        place.connection.data_received(line + b"\r\n" + SWITCH + rest + GET + LAST)
        await anyio.wait_all_tasks_blocked()
        bodies = {GET: b"", POST: b"ab\r\n\r\ncdef", CHUNKS: b"abc\r\n\r\n"}
        assert place.seen.requests[0][4] == bodies[asking]
        assert place.seen.requests[1:] == [EXPECTED[0], EXPECTED[-1]]


async def test_what_follows_the_opening_of_a_tunnel_is_not_taken_for_a_request() -> None:
    async with a_place() as place:
        place.connection.data_received(b"CONNECT /x HTTP/1.1\r\nHost: here\r\n\r\n" + GET)
        await anyio.wait_all_tasks_blocked()
        assert [request[1] for request in place.seen.requests] == ["/x"]
        assert place.socket.is_closed


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: here\r\nHost: here\r\n",
        b"Host: here\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: here\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"Host: here\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        b"Host: here\r\nA: b\r\n c\r\n",
    ],
)
async def test_a_head_that_two_readers_could_take_for_two_is_refused(lines: bytes) -> None:
    async with a_place() as place:
        place.connection.data_received(b"POST / HTTP/1.1\r\n" + lines + b"\r\n")
        await anyio.wait_all_tasks_blocked()
        assert place.statuses() == [400]
        assert not place.seen.requests
        assert place.socket.is_closed
