"""What a connection to a port of a sandbox does, wherever the sandbox lives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from sandpool.errors import BadAddress, DialFailed, LeaseOver
from sandpool.models import PoolSpec
from sandpool.service import ByteStream, Sandbox, SandboxService

pytestmark = pytest.mark.anyio

PORT = 8080
LIMIT = 60.0

# Each answers one connection in its own way, and says when it listens.
_SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 8080))
print("listening", flush=True)
connection, _ = listener.accept()
"""
ECHO = _SERVER + "while data := connection.recv(65536): connection.sendall(data)"
ANSWERS_AT_THE_END = (
    _SERVER
    + """
size = 0
while data := connection.recv(65536):
    size += len(data)
connection.sendall(b"%d bytes" % size)
"""
)
ENDS_FIRST = (
    _SERVER
    + """
connection.sendall(b"bye")
connection.shutdown(socket.SHUT_WR)
print(connection.recv(100).decode(), flush=True)
"""
)


@pytest.fixture
async def sandbox(service: SandboxService) -> AsyncIterator[Sandbox]:
    await service.create_pool(PoolSpec(name="one", warm=1))
    async with service.lease("one") as sandbox:
        yield sandbox


@pytest.fixture
async def process_sandbox(process_service: SandboxService) -> AsyncIterator[Sandbox]:
    await process_service.create_pool(PoolSpec(name="one", warm=1))
    async with process_service.lease("one") as sandbox:
        yield sandbox


@asynccontextmanager
async def listening(sandbox: Sandbox, code: str) -> AsyncGenerator[AsyncIterator[object]]:
    """Run a server for the length of a block, which gets its further output."""
    async with await sandbox.start_process(["python3", "-c", code]) as process:
        output = aiter(process)
        with anyio.fail_after(LIMIT):
            assert await anext(output) == ("stdout", b"listening\n")
        yield output


async def read_all(stream: ByteStream) -> bytes:
    pieces: list[bytes] = []
    with anyio.fail_after(LIMIT):
        while piece := await stream.receive():
            pieces.append(piece)
    return b"".join(pieces)


async def test_a_port_answers(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(
        ["python3", "-u", "-m", "http.server", "8080"]
    ) as server:
        await anext(aiter(server))
        stream = await sandbox.dial(PORT)
        await stream.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = await read_all(stream)
        assert await stream.receive() == b""
        await stream.aclose()
        await stream.aclose()
    assert answer.startswith(b"HTTP/1.")


async def test_a_port_that_nothing_listens_on_is_refused(sandbox: Sandbox) -> None:
    for _ in range(2):
        with pytest.raises(DialFailed):
            await sandbox.dial(PORT)
    assert (await sandbox.run_code("print('on')")).stdout == "on\n"


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_what_is_no_port_is_not_dialled(sandbox: Sandbox, port: int) -> None:
    with pytest.raises(BadAddress):
        await sandbox.dial(port)


async def test_bytes_go_both_ways_at_one_time(process_sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 8192
    async with listening(process_sandbox, ECHO), anyio.create_task_group() as group:
        stream = await process_sandbox.dial(PORT)

        async def feed() -> None:
            await stream.send(data)
            await stream.send_eof()

        group.start_soon(feed)
        assert await read_all(stream) == data
        await stream.aclose()


async def test_our_side_may_end_before_theirs(process_sandbox: Sandbox) -> None:
    async with listening(process_sandbox, ANSWERS_AT_THE_END):
        stream = await process_sandbox.dial(PORT)
        await stream.send(b"12345")
        await stream.send_eof()
        assert await read_all(stream) == b"5 bytes"
        await stream.aclose()


async def test_their_side_may_end_before_ours(process_sandbox: Sandbox) -> None:
    async with listening(process_sandbox, ENDS_FIRST) as output:
        stream = await process_sandbox.dial(PORT)
        assert await read_all(stream) == b"bye"
        await stream.send(b"still here")
        with anyio.fail_after(LIMIT):
            assert await anext(output) == ("stdout", b"still here\n")
        await stream.aclose()


async def test_closing_ends_both_sides(process_sandbox: Sandbox) -> None:
    async with listening(process_sandbox, _SERVER + "print(connection.recv(1))") as output:
        stream = await process_sandbox.dial(PORT)
        await stream.aclose()
        with anyio.fail_after(LIMIT):
            assert await anext(output) == ("stdout", b"b''\n")


async def test_a_lease_that_has_ended_opens_no_port(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1))
    async with service.lease("one") as sandbox:
        pass
    with pytest.raises(LeaseOver):
        await sandbox.dial(PORT)
