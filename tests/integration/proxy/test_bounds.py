"""What goes wrong between a client and a sandbox's port, and how each of them is told."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import httpx
import pytest

from sandpool.proxy.gate import MOST_VISITS
from sandpool.server import ServerSettings
from tests.integration.proxy.conftest import NewWorld
from tests.integration.proxy.world import PORT, Handler, World, close, echo, handler_of

pytestmark = pytest.mark.anyio

LIMIT = 60.0


def saying(data: bytes) -> Handler:
    """Return a handler that answers every connection with these bytes, and closes it."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return speak


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Serve a connection by never answering."""
    await reader.read()


async def test_a_port_where_nothing_listens_is_a_bad_gateway(world: World) -> None:
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert answer.status_code == 502
    assert answer.json()["code"] == "dial_failed"
    assert "refused" in answer.json()["detail"]


async def test_a_sandbox_that_there_is_not_is_not_found(world: World) -> None:
    answer = await world.client.get(f"/p/nobody/{PORT}/")
    assert (answer.status_code, answer.json()["code"]) == (404, "sandbox_not_found")


async def test_a_sandbox_that_has_ended_is_gone(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    url = (await world.address(box))["url"]
    await world.client.delete(f"/v1/sandboxes/{box}")
    for each in (url, f"/p/{box}/{PORT}/"):
        answer = await world.client.get(each)
        assert answer.status_code == 410, answer.text
    assert world.machine.dials == []


async def test_a_sandbox_that_has_died_is_gone_and_says_of_what(world: World) -> None:
    box = await world.new_sandbox()
    world.machine.backends[0].box(box).die("oom")
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert (answer.status_code, answer.json()["code"]) == (410, "sandbox_died")
    assert answer.json()["reason"] == "oom"


async def test_a_request_is_told_of_what_its_sandbox_died(world: World) -> None:
    async def die(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        world.machine.backends[0].box(box).die("oom")

    await world.machine.serve(PORT, die)
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert (answer.status_code, answer.json()["reason"]) == (410, "oom")


async def test_a_new_sandbox_under_an_old_id_is_not_reached_by_the_old_address(
    world: World,
) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    await world.new_sandbox("again")
    old = (await world.address("again"))["url"]
    assert (await world.client.get(old)).status_code == 200
    await world.client.delete("/v1/sandboxes/again")
    await world.new_sandbox("again")
    new = (await world.address("again"))["url"]
    assert new != old
    assert (await world.client.get(old)).status_code == 410
    assert (await world.client.get(new)).status_code == 200
    # The connection that the old one had kept is not the new one's.
    assert world.machine.dials == [PORT, PORT]


async def test_the_end_of_a_sandbox_cuts_what_is_in_progress(world: World) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    await world.machine.serve(PORT, pour)
    box = await world.new_sandbox()
    with anyio.fail_after(LIMIT):
        async with world.client.stream("GET", f"/p/{box}/{PORT}/") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"x"
            await world.client.delete(f"/v1/sandboxes/{box}")
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)


async def test_a_request_that_waits_is_told_when_its_sandbox_ends(world: World) -> None:
    asked = asyncio.Event()

    async def ask(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    await world.machine.serve(PORT, ask)
    box = await world.new_sandbox()

    async def end() -> None:
        await asked.wait()
        await world.client.delete(f"/v1/sandboxes/{box}")

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert answer.status_code == 410


async def test_a_lease_that_expires_takes_its_address_along(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    await world.client.post("/v1/pools", json={"name": "web", "warm": 1})
    claimed = await world.client.post("/v1/pools/web/claim", json={"lifetime": 60})
    box = claimed.json()["sandbox"]["id"]
    url = (await world.address(box))["url"]
    assert (await world.client.get(url)).status_code == 200
    await world.clock.advance(61)
    with anyio.fail_after(LIMIT):
        while (await world.client.get(url)).status_code == 200:
            await anyio.lowlevel.checkpoint()
    assert (await world.client.get(url)).status_code == 410
    assert (await world.client.get(f"/p/{box}/{PORT}/")).status_code == 410


async def test_a_sandbox_that_waits_in_its_pool_is_nobody_s(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    await world.client.post("/v1/pools", json={"name": "web", "warm": 1})
    await world.client.post("/v1/pools/web/warm")
    (member,) = (await world.client.get("/v1/sandboxes")).json()["items"]
    answer = await world.client.get(f"/p/{member['id']}/{PORT}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "sandbox_leased")
    assert world.machine.dials == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
async def test_what_is_no_answer_is_a_bad_gateway(world: World, data: bytes) -> None:
    await world.machine.serve(PORT, saying(data))
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_gateway")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nnonsense\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_not_taken_for_whole(world: World, data: bytes) -> None:
    await world.machine.serve(PORT, saying(data))
    box = await world.new_sandbox()
    with pytest.raises(httpx.RemoteProtocolError):
        await world.client.get(f"/p/{box}/{PORT}/")


async def test_a_second_answer_is_not_taken_for_the_next_request_s(world: World) -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    await world.machine.serve(PORT, saying(one + evil))
    box = await world.new_sandbox()
    for _ in range(3):
        assert (await world.client.get(f"/p/{box}/{PORT}/")).text == "one"


async def test_a_server_that_does_not_answer_is_given_up(new_world: NewWorld) -> None:
    world = await new_world(ServerSettings(port=0, port_timeout=0.2))
    await world.machine.serve(PORT, silent)
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert (answer.status_code, answer.json()["code"]) == (504, "gateway_timeout")


async def test_a_client_that_does_not_send_its_body_is_given_up(new_world: NewWorld) -> None:
    world = await new_world(ServerSettings(port=0, port_timeout=0.2))
    await world.machine.serve(PORT, silent)
    box = await world.new_sandbox()
    parts = httpx.URL(world.url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(
        f"POST /p/{box}/{PORT}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx".encode()
    )
    with anyio.fail_after(LIMIT):
        assert b" 408 " in await reader.readline()
        await world.machine.wait_closed()
    await close(writer)


async def test_headers_without_end_are_given_up(new_world: NewWorld) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    world = await new_world(ServerSettings(port=0, port_timeout=0.3))
    await world.machine.serve(PORT, drip)
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/")
    assert answer.status_code == 504


async def test_an_answer_that_stops_is_given_up(new_world: NewWorld) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome")
        await reader.read()

    world = await new_world(ServerSettings(port=0, port_idle_timeout=0.2))
    await world.machine.serve(PORT, stall)
    box = await world.new_sandbox()
    with pytest.raises(httpx.RemoteProtocolError):
        await world.client.get(f"/p/{box}/{PORT}/")


async def test_a_sandbox_has_so_many_connections_and_no_more(world: World) -> None:
    await world.machine.serve(PORT, silent)
    box = await world.new_sandbox()
    parts = httpx.URL(world.url)
    request = f"GET /p/{box}/{PORT}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    writers: list[asyncio.StreamWriter] = []
    with anyio.fail_after(LIMIT):
        for _ in range(MOST_VISITS):
            _, writer = await asyncio.open_connection(parts.host, parts.port)
            writer.write(request)
            writers.append(writer)
        await world.machine.wait_dialled(MOST_VISITS)
        answer = await world.client.get(f"/p/{box}/{PORT}/")
        assert (answer.status_code, answer.json()["code"]) == (429, "no_capacity")
        for writer in writers:
            await close(writer)
        await world.machine.wait_closed()
    world.machine.stop(PORT)
    assert (await world.client.get(f"/p/{box}/{PORT}/")).status_code == 502


@pytest.mark.parametrize(
    "head",
    [
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET {path}\x0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET {path}../../../v1/pools HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET {path}%2e%2e/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /%70{rest} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_a_request_of_two_meanings_reaches_nobody(world: World, head: str) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    path = f"/p/{box}/{PORT}/"
    answer = await world.raw(head.format(path=path, rest=path[2:]).encode())
    assert answer.split()[1] in (b"400", b"501")
    assert world.machine.dials == []


async def test_what_a_client_smuggles_into_a_body_stays_a_body(world: World) -> None:
    seen: list = []  # type: ignore[type-arg]
    await world.machine.serve(PORT, handler_of(echo, seen=seen))
    box = await world.new_sandbox()
    inner = b"GET /v1/pools HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(2):
        await world.client.post(f"/p/{box}/{PORT}/", content=inner)
    assert [body for _, body in seen] == [inner, inner]
