"""HTTP through the addresses that a server gives to its sandboxes' ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import h11
import httpx
import pytest

from sandpool.server import ServerSettings
from tests.integration.proxy.conftest import NewWorld
from tests.integration.proxy.world import PORT, World, close, echo, handler_of

pytestmark = pytest.mark.anyio

LIMIT = 60.0
STALL = 0.3
"""Seconds without progress that tell a full pipe from a slow one."""
LARGEST_BUFFERS = 64_000_000
"""Bytes that the kernel's buffers may take on the way; a body is far larger."""


async def test_a_request_by_its_path_reaches_the_sandbox_as_it_was_sent(world: World) -> None:
    seen: list[tuple[h11.Request, bytes]] = []
    await world.machine.serve(PORT, handler_of(echo, seen=seen))
    box = await world.new_sandbox()
    answer = await world.client.put(
        f"/p/{box}/{PORT}/a%2Fb/c?q=%20&r", content=b"body", headers={"x-mine": "1"}
    )
    assert answer.status_code == 200
    assert answer.text == "PUT /a%2Fb/c?q=%20&r body"
    headers = dict(seen[0][0].headers)
    assert headers[b"x-mine"] == b"1"
    assert headers[b"x-forwarded-prefix"] == f"/p/{box}/{PORT}".encode()
    assert headers[b"host"] == world.url.removeprefix("http://").encode()
    assert headers[b"content-length"] == b"4"


async def test_the_address_of_the_api_needs_nothing_else(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    address = await world.address(box)
    assert address["url"] == f"{world.url}/p/{box}~{address['token']}/{PORT}/"
    async with httpx.AsyncClient(verify=False, timeout=60) as stranger:
        answer = await stranger.get(address["url"] + "x")
    assert (answer.status_code, answer.text) == (200, "GET /x ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_every_method_is_passed_on(world: World, method: str) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    answer = await world.client.request(method, f"/p/{box}/{PORT}/")
    assert answer.status_code == 200
    assert answer.text == ("" if method == "HEAD" else f"{method} / ")


@pytest.mark.parametrize("status", [204, 304, 418, 599])
async def test_every_status_is_passed_back(world: World, status: int) -> None:
    await world.machine.serve(PORT, handler_of(lambda *_: (status, [("x-mine", "1")], b"")))
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert (answer.status_code, answer.headers["x-mine"]) == (status, "1")


async def test_an_address_without_its_last_slash_leads_to_the_one_with_it(world: World) -> None:
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}?a=1")
    assert answer.status_code == 308
    assert answer.headers["location"] == f"/p/{box}/{PORT}/?a=1"


async def test_connections_into_a_sandbox_are_kept_for_the_next_request(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    for _ in range(5):
        assert (await world.client.get(f"/p/{box}/{PORT}/")).status_code == 200
    assert world.machine.dials == [PORT]


async def test_a_connection_that_was_closed_meanwhile_is_made_anew(world: World) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    await world.machine.serve(PORT, once)
    box = await world.new_sandbox()
    for _ in range(3):
        answer = await world.client.get(f"/p/{box}/{PORT}/")
        assert (answer.status_code, answer.text) == (200, "ok")


async def test_a_request_that_must_not_be_sent_twice_gets_a_new_connection(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    for _ in range(3):
        assert (await world.client.post(f"/p/{box}/{PORT}/", content=b"1")).status_code == 200
    assert world.machine.dials == [PORT] * 3


async def test_connections_are_not_shared_between_sandboxes(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    for _ in range(2):
        box = await world.new_sandbox()
        await world.client.get(f"/p/{box}/{PORT}/")
    assert world.machine.dials == [PORT] * 2


async def test_an_answer_is_passed_back_piece_by_piece(world: World) -> None:
    go_on = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await writer.drain()

    await world.machine.serve(PORT, slowly)
    box = await world.new_sandbox()
    with anyio.fail_after(LIMIT):
        async with world.client.stream("GET", f"/p/{box}/{PORT}/") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"one"
            go_on.set()
            assert b"".join([piece async for piece in pieces]) == b"two"


async def test_a_request_is_passed_on_piece_by_piece(world: World) -> None:
    first = asyncio.Event()
    last = asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one")
        first.set()
        await reader.readuntil(b"0\r\n\r\n")
        last.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await first.wait()
        yield b"two"

    await world.machine.serve(PORT, read)
    box = await world.new_sandbox()
    with anyio.fail_after(LIMIT):
        answer = await world.client.post(f"/p/{box}/{PORT}/", content=body())
    assert answer.status_code == 200
    assert last.is_set()


async def test_large_bodies_go_both_ways(world: World) -> None:
    size = 30_000_000
    await world.machine.serve(PORT, handler_of(lambda _, body: (200, [], body)))
    box = await world.new_sandbox()
    answer = await world.client.post(f"/p/{box}/{PORT}/", content=b"x" * size)
    assert len(answer.content) == size


async def pour(writer: asyncio.StreamWriter) -> int:
    """Write until nobody takes it any more, and return how many bytes that were."""
    sent = 0
    while True:
        writer.write(b"x" * 65_536)
        try:
            await asyncio.wait_for(writer.drain(), STALL)
        except (TimeoutError, ConnectionError):
            return sent  # or it was given up while this machine was busy elsewhere
        sent += 65_536


async def test_what_a_client_does_not_take_is_not_asked_of_the_sandbox(world: World) -> None:
    poured: list[int] = []
    stalled = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        poured.append(await pour(writer))
        stalled.set()

    await world.machine.serve(PORT, answer)
    box = await world.new_sandbox()
    with anyio.fail_after(LIMIT):
        async with world.client.stream("GET", f"/p/{box}/{PORT}/"):
            await stalled.wait()
    assert poured[0] < LARGEST_BUFFERS


async def test_what_a_sandbox_does_not_take_is_not_asked_of_the_client(
    new_world: NewWorld,
) -> None:
    # While nothing moves, nobody can tell whether the client is there: the time ends that.
    world = await new_world(ServerSettings(port=0, port_timeout=2 * STALL))

    async def ignore(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    await world.machine.serve(PORT, ignore)
    box = await world.new_sandbox()
    parts = httpx.URL(world.url)
    _, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(
        f"POST /p/{box}/{PORT}/ HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Length: 1000000000\r\n\r\n".encode()
    )
    with anyio.fail_after(LIMIT):
        assert await pour(writer) < LARGEST_BUFFERS
    writer.transport.abort()


async def test_a_client_that_leaves_closes_the_sandbox_s_connection(world: World) -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await reader.read()
        ended.set()

    await world.machine.serve(PORT, wait)
    box = await world.new_sandbox()
    with anyio.fail_after(LIMIT):
        async with world.client.stream("GET", f"/p/{box}/{PORT}/") as answer:
            await anext(answer.aiter_raw())
        await ended.wait()


async def test_a_client_that_waits_for_leave_to_send_gets_it(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    parts = httpx.URL(world.url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(
        f"POST /p/{box}/{PORT}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    with anyio.fail_after(LIMIT):
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(b"body")
        await reader.readuntil(b"POST / body")
    await close(writer)


async def test_an_answer_can_come_before_the_request_is_over(world: World) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()

    await world.machine.serve(PORT, refuse)
    box = await world.new_sandbox()
    parts = httpx.URL(world.url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(
        f"POST /p/{box}/{PORT}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nxx".encode()
    )
    with anyio.fail_after(LIMIT):
        assert b" 413 " in await reader.readline()
        await reader.readuntil(b"big")
    await close(writer)
