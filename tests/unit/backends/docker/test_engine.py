"""A client of engines that answer well, badly, in pieces, or not at all."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandpool.backends.docker.engine import Engine
from sandpool.errors import BackendUnavailable

pytestmark = pytest.mark.anyio

VERSION = {"ApiVersion": "1.41"}


class ScriptedEngine:
    """Sends what the test wants, whatever it is asked; keeps what it was asked."""

    def __init__(self, address: str) -> None:
        self.client = Engine(address)
        self.answer = b""
        self.asked: list[bytes] = []
        self.stays = False
        """Whether it keeps the connection open after its answer."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().splitlines()
            if line.startswith(b"content-length")
        )
        self.asked.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        if self.stays:
            await reader.read()
        writer.close()


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    # Not pytest's own directory: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="sandpool-") as directory:
        path = str(Path(directory) / "engine")
        scripted = ScriptedEngine(f"unix://{path}")
        async with await asyncio.start_unix_server(scripted.serve, path):
            yield scripted


def said(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def chunked(*pieces: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


async def test_an_answer_is_whole_however_it_comes(engine: ScriptedEngine) -> None:
    for answer in (said(b'{"a": 1}'), chunked(b'{"a', b'": ', b"1}")):
        engine.answer = answer
        found = await engine.client.request("GET", "/x", timeout=5)
        assert (found.status, found.fields()) == (200, {"a": 1})


async def test_later_requests_speak_the_version_that_was_agreed_on(engine: ScriptedEngine) -> None:
    engine.answer = said(json.dumps(VERSION).encode())
    await engine.client.open()
    await engine.client.request("POST", "/x", query={"a": "b c"}, body={"k": 1}, timeout=5)
    assert engine.asked[0].startswith(b"GET /version HTTP/1.1\r\n")
    assert engine.asked[1].startswith(b"POST /v1.41/x?a=b+c HTTP/1.1\r\n")
    assert engine.asked[1].endswith(b'\r\n\r\n{"k": 1}')


@pytest.mark.parametrize("answer", [said(b"{}"), said(b"no", "404 Not Found"), said(b"[]")])
async def test_what_is_no_engine_is_said_to_be_none(engine: ScriptedEngine, answer: bytes) -> None:
    engine.answer = answer
    with pytest.raises(BackendUnavailable):
        await engine.client.open()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "no such\\n thing"}', "no such thing"),
        (b"plain text", "plain text"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"[1]", "[1]"),
        (b"", "status 500"),
    ],
)
async def test_a_refusal_has_one_line_of_reason(
    engine: ScriptedEngine, body: bytes, message: str
) -> None:
    engine.answer = said(body, "500 Oh")
    found = await engine.client.request("GET", "/x", timeout=5)
    assert (found.is_ok, found.message) == (False, message)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        chunked(b"x")[:-6],
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["nothing", "another protocol", "half a body", "half a chunk", "an endless head"],
)
async def test_an_answer_that_breaks_off_is_the_engine_s_fault(
    engine: ScriptedEngine, answer: bytes
) -> None:
    engine.answer = answer
    with pytest.raises(BackendUnavailable, match=r"Docker Engine at unix://.* DOCKER_HOST"):
        await engine.client.request("GET", "/x", timeout=5)


async def test_an_engine_that_says_nothing_is_not_waited_for(engine: ScriptedEngine) -> None:
    engine.stays = True
    with pytest.raises(BackendUnavailable, match="did not answer GET /x in time"):
        await engine.client.request("GET", "/x", timeout=0.05)


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b"not JSON"])
async def test_an_answer_of_another_kind_is_no_object(engine: ScriptedEngine, body: bytes) -> None:
    engine.answer = said(body)
    found = await engine.client.request("GET", "/x", timeout=5)
    with pytest.raises(BackendUnavailable):
        found.fields()


@pytest.mark.parametrize("body", [b"{}", b"3", b"not JSON"])
async def test_an_answer_of_another_kind_is_no_list(engine: ScriptedEngine, body: bytes) -> None:
    engine.answer = said(body)
    found = await engine.client.request("GET", "/x", timeout=5)
    with pytest.raises(BackendUnavailable):
        found.rows()


async def test_what_follows_an_attach_is_not_lost(engine: ScriptedEngine) -> None:
    engine.answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"
    engine.stays = True
    sock, early = await engine.client.attach("c", timeout=5)
    with sock:
        assert b"POST /containers/c/attach?stream=1&stdin=1" in engine.asked[0]
        assert early == b"early"
        assert sock.getblocking() is False


async def test_an_attach_that_is_refused_says_why(engine: ScriptedEngine) -> None:
    engine.answer = said(b'{"message": "No such container: c"}', "404 Not Found")
    with pytest.raises(BackendUnavailable, match="No such container: c"):
        await engine.client.attach("c", timeout=5)


async def follow(engine: ScriptedEngine, patience: float = 5) -> list[Any]:
    lines: list[Any] = []
    answer = await engine.client.follow(
        "POST", "/images/create", query={}, on_line=lines.append, patience=patience
    )
    assert answer.is_ok
    return lines


async def test_progress_comes_by_lines_however_they_are_cut(engine: ScriptedEngine) -> None:
    engine.answer = chunked(b'{"a": 1}\r\n{"a"', b": 2}\n", b'\n{"a": 3}\n')
    assert await follow(engine) == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("piece", [b"no JSON\n", b"[1]\n", b"x" * (2 << 20)])
async def test_progress_that_is_none_is_the_engine_s_fault(
    engine: ScriptedEngine, piece: bytes
) -> None:
    engine.answer = chunked(piece)
    with pytest.raises(BackendUnavailable):
        await follow(engine)


async def test_progress_that_stops_is_not_waited_for(engine: ScriptedEngine) -> None:
    engine.answer = chunked(b'{"a": 1}\n')[:-5]
    engine.stays = True
    with pytest.raises(BackendUnavailable, match="in time"):
        await follow(engine, patience=0.05)


async def test_a_request_that_makes_something_is_answered_though_its_caller_is_cancelled(
    engine: ScriptedEngine,
) -> None:
    engine.answer = said(b'{"Id": "made"}', "201 Created")
    found: list[str] = []

    async def make(step: Callable[[], Awaitable[None]]) -> None:
        answer = await engine.client.make_container("name", {})
        found.append(answer.fields()["Id"])
        await step()

    with anyio.CancelScope() as scope:
        scope.cancel()
        await make(anyio.lowlevel.checkpoint)
    assert found == ["made"]
    assert scope.cancelled_caught
