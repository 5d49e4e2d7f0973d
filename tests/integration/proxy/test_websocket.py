"""WebSockets through the addresses that a server gives to its sandboxes' ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from tests.integration.proxy.world import PORT, World, handler_of

pytestmark = pytest.mark.anyio

LIMIT = 60.0


@asynccontextmanager
async def serving(world: World, **options: object) -> AsyncIterator[list[ServerConnection]]:
    """Have a WebSocket server in every sandbox, which echoes; yields its connections."""
    connections: list[ServerConnection] = []

    async def echo(connection: ServerConnection) -> None:
        connections.append(connection)
        async for message in connection:
            if message == "leave":
                await connection.close(4321, "as you wish")
            else:
                await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        (listener,) = server.sockets
        world.machine.lead(PORT, *listener.getsockname())
        yield connections


async def address(world: World) -> str:
    box = await world.new_sandbox()
    url: str = (await world.address(box))["url"]
    return url.replace("http://", "ws://")


async def test_messages_go_both_ways(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world), connect(await address(world) + "chat?room=1") as socket:
            for message in ("hello", b"\x00\xff", "", "x" * 100_000):
                await socket.send(message)
                assert await socket.recv() == message


async def test_the_sandbox_s_server_sees_the_request(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world) as connections:
            url = await address(world)
            headers = {"X-Mine": "1", "X-API-Key": "secret", "Origin": "null"}
            async with connect(url + "chat?room=1", additional_headers=headers) as socket:
                await socket.send("hello")
                await socket.recv()
            request = connections[0].request
            assert request is not None
            assert request.path == "/chat?room=1"
            assert request.headers["X-Mine"] == "1"
            assert "X-API-Key" not in request.headers
            assert request.headers.get_all("Host") == [world.url.removeprefix("http://")]


async def test_the_subprotocol_is_the_one_that_the_sandbox_chose(world: World) -> None:
    names = [Subprotocol("b")]
    with anyio.fail_after(LIMIT):
        async with (
            serving(world, subprotocols=names),
            connect(
                await address(world), subprotocols=[Subprotocol("a"), Subprotocol("b")]
            ) as socket,
        ):
            assert socket.subprotocol == "b"


async def test_the_sandbox_s_way_of_closing_reaches_the_client(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world), connect(await address(world)) as socket:
            await socket.send("leave")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


async def test_the_client_s_way_of_closing_reaches_the_sandbox(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world) as connections:
            async with connect(await address(world)) as socket:
                await socket.send("hello")
                await socket.recv()
                await socket.close(4000, "bye")
            await connections[0].wait_closed()
            assert (connections[0].close_code, connections[0].close_reason) == (4000, "bye")


async def test_a_client_that_vanishes_closes_the_sandbox_s_connection(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world) as connections, connect(await address(world)) as socket:
            await socket.send("hello")
            await socket.recv()
            socket.transport.abort()
            await connections[0].wait_closed()


async def test_a_refusal_of_the_sandbox_s_server_is_passed_back(world: World) -> None:
    await world.machine.serve(PORT, handler_of(lambda *_: (403, [("x-mine", "1")], b"no")))
    with anyio.fail_after(LIMIT), pytest.raises(InvalidStatus) as refused:
        await _open(await address(world))
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["x-mine"] == "1"
    assert refused.value.response.body == b"no"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 101 Switching\r\n\r\n", 502),
        (b"nonsense\r\n\r\n", 502),
        (b"", 502),
    ],
)
async def test_what_is_no_websocket_is_a_bad_gateway(
    world: World, answer: bytes, status: int
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    await world.machine.serve(PORT, speak)
    with anyio.fail_after(LIMIT), pytest.raises(InvalidStatus) as refused:
        await _open(await address(world))
    assert refused.value.response.status_code == status


async def test_no_server_and_no_sandbox_are_told_as_over_http(world: World) -> None:
    with anyio.fail_after(LIMIT):
        with pytest.raises(InvalidStatus) as refused:
            await _open(await address(world))
        assert refused.value.response.status_code == 502
        with pytest.raises(InvalidStatus) as refused:
            await _open(world.url.replace("http", "ws") + "/p/nobody/80/")
        assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\xf1\x00", 1002),  # reserved bits
        (b"\x81\x02\xff\xff", 1007),  # text that is no text
        (b"\x82\x7f\x00\x00\x00\x00\x7f\xff\xff\xff", 1009),  # a message of 2 GiB
    ],
)
async def test_frames_that_break_the_protocol_close_it(
    world: World, frames: bytes, code: int
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if b"-Key: " in line).split(b": ")[1]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key.decode()).encode() + b"\r\n\r\n" + frames
        )
        await reader.read()

    await world.machine.serve(PORT, speak)
    with anyio.fail_after(LIMIT):
        async with connect(await address(world)) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code


async def test_the_end_of_the_sandbox_closes_it(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world):
            box = await world.new_sandbox()
            url = (await world.address(box))["url"].replace("http://", "ws://")
            async with connect(url) as socket:
                await socket.send("hello")
                await socket.recv()
                await world.client.delete(f"/v1/sandboxes/{box}")
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001


async def test_the_death_of_the_sandbox_closes_it(world: World) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(world) as connections:
            box = await world.new_sandbox()
            url = (await world.address(box))["url"].replace("http://", "ws://")
            async with connect(url) as socket:
                await socket.send("hello")
                await socket.recv()
                world.machine.backends[0].box(box).die("oom")
                connections[0].transport.close()
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "sandbox_died")


async def _open(url: str) -> ClientConnection:
    async with connect(url) as socket:
        return socket
