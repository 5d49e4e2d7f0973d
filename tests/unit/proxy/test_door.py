"""Loopback ports that lead into a sandbox, and how they close."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest

from sandpool.errors import ForbiddenOrigin, LeaseOver, SandpoolError
from sandpool.proxy.door import Door, admitted
from sandpool.proxy.gate import MOST_VISITS, Gate
from tests.integration.proxy.world import Handler, Machine, close

pytestmark = [pytest.mark.anyio, pytest.mark.uvloop]

PORT = 4000
LIMIT = 60.0

OVER = LeaseOver("the lease is over")


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    machine = Machine()
    yield machine
    await machine.aclose()


@asynccontextmanager
async def opened(
    machine: Machine, handler: Handler | None, *, is_private: bool = False
) -> AsyncIterator[tuple[Gate, Door]]:
    """Have a door to a port of the machine, where `handler` serves, or nothing."""
    if handler is not None:
        await machine.serve(PORT, handler)
    gate = Gate("box", machine.dial)
    door = Door(gate, PORT, is_private=is_private)
    door.listen()
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            await group.start(door.run)
            try:
                yield gate, door
            finally:
                group.cancel_scope.cancel()
                door.close()


@asynccontextmanager
async def calling(
    door: Door,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(door.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        await close(writer)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer once the caller has ended its side."""
    writer.write(str(len(await reader.read())).encode())
    await writer.drain()


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, as many protocols do."""
    writer.write(b"welcome")
    await writer.drain()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_bytes_go_both_ways_as_they_are(machine: Machine) -> None:
    async with opened(machine, echo) as (_, door), calling(door) as (reader, writer):
        for data in (b"hello", bytes(range(256)) * 1000):
            writer.write(data)
            assert await reader.readexactly(len(data)) == data


async def test_either_side_can_end_before_the_other(machine: Machine) -> None:
    async with opened(machine, count) as (_, door), calling(door) as (reader, writer):
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"1000000"


async def test_a_server_may_speak_first(machine: Machine) -> None:
    async with opened(machine, greet) as (_, door), calling(door) as (reader, _writer):
        assert await reader.read() == b"welcome"


async def test_a_caller_hears_why_nothing_answers(machine: Machine) -> None:
    async with opened(machine, None) as (_, door), calling(door) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"application/problem+json" in head
    assert b'"code": "dial_failed"' in body


async def test_a_caller_that_leaves_closes_the_sandbox_s_connection(machine: Machine) -> None:
    async with opened(machine, silent) as (_, door):
        async with calling(door) as (_, writer):
            writer.write(b"x")
            await machine.wait_dialled(1)
            writer.transport.abort()
        await machine.wait_closed()


async def test_a_server_that_breaks_off_closes_the_caller_s_connection(machine: Machine) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with opened(machine, leave) as (_, door), calling(door) as (reader, writer):
        writer.write(b"x")
        assert await _rest(reader) == b""


async def test_the_end_of_the_lease_cuts_what_is_open(machine: Machine) -> None:
    async with opened(machine, echo) as (gate, door), calling(door) as (reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        gate.close(OVER)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert gate.visits == 0
        await machine.wait_closed()


async def test_a_door_of_an_ended_lease_lets_nobody_in(machine: Machine) -> None:
    async with opened(machine, echo) as (gate, door):
        gate.close(OVER)
        async with calling(door) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 410 ")
    assert machine.dials == []


async def test_a_door_lets_in_so_many_and_no_more(machine: Machine) -> None:
    async with opened(machine, silent) as (_, door), anyio.create_task_group() as group:
        for _ in range(MOST_VISITS):
            group.start_soon(_stay, door)
        await machine.wait_dialled(MOST_VISITS)
        async with calling(door) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 429 ")
        group.cancel_scope.cancel()


def by_url(gate: Gate) -> str:
    pair = f"sandpool:{gate.token(PORT)}".encode()
    return "Authorization: Basic " + base64.b64encode(pair).decode()


RIGHT: list[Callable[[Gate], str]] = [
    by_url,
    lambda gate: f"X-Sandpool-Token: {gate.token(PORT)}",
    lambda gate: f"x-sandpool-token:{gate.token(PORT)} ",
]
WRONG: list[Callable[[Gate], str]] = [
    lambda _: "Accept: */*",
    lambda gate: f"X-Sandpool-Token: {gate.token(PORT + 1)}",
    lambda _: "X-Sandpool-Token:",
    lambda gate: f"Authorization: Bearer {gate.token(PORT)}",
    lambda gate: f"Authorization: Basic {gate.token(PORT)}",
    lambda gate: f"\r\nX-Sandpool-Token: {gate.token(PORT)}",
]


@pytest.mark.parametrize("header", RIGHT)
async def test_a_private_door_opens_to_its_token(
    machine: Machine, header: Callable[[Gate], str]
) -> None:
    async with (
        opened(machine, echo, is_private=True) as (gate, door),
        calling(door) as (reader, writer),
    ):
        writer.write(f"GET / HTTP/1.1\r\nA: 1\r\n{header(gate)}\r\n\r\nand more".encode())
        writer.write_eof()
        # The token stays here, and so does every other request.
        assert await reader.read() == b"GET / HTTP/1.1\r\nA: 1\r\nConnection: close\r\n\r\nand more"


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"Connection: keep-alive", b"Connection: close"),
        (b"connection:close", b"Connection: close"),
        (b"Connection: Upgrade\r\nUpgrade: websocket", None),
        (b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nConnection: upgrade", None),
    ],
)
def test_a_private_door_lets_in_one_request_or_one_websocket(
    sent: bytes, passed: bytes | None
) -> None:
    head = b"GET / HTTP/1.1\r\n"
    assert admitted(head + b"X-Sandpool-Token: t\r\n" + sent, "t") == head + (passed or sent)


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nA: 1\r\n\r\nbody\r\n\r\nmore",
            b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\nbody\r\n\r\nmore",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\nConnection: close\r\n\r\n",
        ),
        (b"HTTP/1.1 101 Up\r\nA: 1\r\n\r\nframes", b"HTTP/1.1 101 Up\r\nA: 1\r\n\r\nframes"),
        (b"something else", b"something else"),
        (b"x" * 200_000, b"x" * 200_000),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_an_answer_through_a_private_door_says_that_it_is_the_last(
    machine: Machine, said: bytes, passed: bytes, size: int
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for start in range(0, min(len(said), 1000), size):
            writer.write(said[start : start + size])
            await writer.drain()
        writer.write(said[1000:])
        await writer.drain()

    async with (
        opened(machine, say, is_private=True) as (gate, door),
        calling(door) as (reader, writer),
    ):
        writer.write(f"GET / HTTP/1.1\r\n{by_url(gate)}\r\n\r\n".encode())
        assert await reader.read() == passed


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_a_private_door_stays_shut_to_pages_of_elsewhere(site: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nX-Sandpool-Token: t\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: "
    with pytest.raises(ForbiddenOrigin):
        admitted(head + site, "t")


@pytest.mark.parametrize("header", WRONG)
async def test_a_private_door_stays_shut_to_all_else(
    machine: Machine, header: Callable[[Gate], str]
) -> None:
    async with (
        opened(machine, echo, is_private=True) as (gate, door),
        calling(door) as (reader, writer),
    ):
        writer.write(f"GET / HTTP/1.1\r\n{header(gate)}\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    assert machine.dials == []


async def test_a_head_without_end_does_not_open_a_private_door(machine: Machine) -> None:
    async with (
        opened(machine, echo, is_private=True) as (_, door),
        calling(door) as (reader, writer),
    ):
        writer.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000)
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")


def test_the_url_of_a_private_door_carries_its_token() -> None:
    machine = Machine()
    gate = Gate("box", machine.dial)
    door = Door(gate, PORT, is_private=True)
    with door.listen():
        parts = urlsplit(door.url)
    assert (parts.username, parts.password) == ("sandpool", gate.token(PORT))
    assert parts.hostname == "127.0.0.1"


def test_tokens_are_of_one_port_of_one_lease() -> None:
    machine = Machine()
    one, other = Gate("box", machine.dial), Gate("box", machine.dial)
    assert len({one.token(1), one.token(2), other.token(1), other.token(2)}) == 4
    assert one.is_opened_by(1, one.token(1))
    assert not one.is_opened_by(2, one.token(1))
    assert not other.is_opened_by(1, one.token(1))


async def test_the_first_reason_for_closing_a_gate_stays() -> None:
    gate = Gate("box", Machine().dial)
    told: list[SandpoolError | None] = []
    gate.on_end(lambda: told.append(gate.ended))
    gate.close(OVER)
    gate.close(LeaseOver("another"))
    gate.on_end(lambda: told.append(gate.ended))
    assert told == [OVER, OVER]
    with pytest.raises(LeaseOver, match="the lease is over"):
        await gate.dial(PORT)


async def _stay(door: Door) -> None:
    async with calling(door) as (reader, _):
        await reader.read()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_port_is_not_taken_again_while_somebody_may_know_it(machine: Machine) -> None:
    urls: set[str] = set()
    for _ in range(600):
        door = Door(Gate("box", machine.dial), PORT)
        door.listen().close()
        urls.add(door.url)
    assert len(urls) == 600
