"""Connections from the host to ports that programs in the sandbox listen on."""

from __future__ import annotations

import hashlib
import os

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.errors import DialFailed, InvalidSpec
from sandpool.guest import frames
from sandpool.service import ByteStream, Process
from tests.integration.guest.conftest import MakeBox
from tests.integration.native.conversation import opened, request

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0
PORT = 4000

SERVER = f"""
import hashlib, socket, threading
listener = socket.create_server(("127.0.0.1", {PORT}))
def accept():
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""

ACCEPT = """
print("up", flush=True)
accept()
"""

ECHO = """
def serve(peer):
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()
"""

DIGEST = """
def serve(peer):
    digest = hashlib.sha256()
    while data := peer.recv(65536):
        digest.update(data)
    peer.sendall(digest.hexdigest().encode())
    peer.close()
"""

POUR = """
def serve(peer):
    size = int(peer.recv(100))
    peer.sendall(b"p" * size)
    peer.close()
"""


async def serve(box: Box, server: str) -> Process:
    """Start a server and return once it listens."""
    process = await box.start_code(SERVER + server + ACCEPT, RunOptions())
    async for _, data in process:
        assert data == b"up\n"
        return process
    raise AssertionError(f"the server did not start: {await process.wait()}")


async def exactly(stream: ByteStream, size: int) -> bytes:
    data = b""
    with anyio.fail_after(LIMIT):
        while len(data) < size:
            piece = await stream.receive()
            assert piece, f"it ended after {len(data)} bytes"
            data += piece
    return data


async def rest(stream: ByteStream) -> bytes:
    pieces: list[bytes] = []
    with anyio.fail_after(LIMIT):
        while piece := await stream.receive():
            pieces.append(piece)
    return b"".join(pieces)


async def test_both_directions_carry_bytes(box: Box) -> None:
    async with await serve(box, ECHO):
        stream = await box.dial(PORT)
        for message in (b"hello", b"\0\xff" * 100):
            await stream.send(message)
            assert await exactly(stream, len(message)) == message
        await stream.aclose()


CROWDED = f"""
import os, socket
listener = socket.socket()
listener.bind(("127.0.0.1", {PORT}))
listener.listen(0)
print("up", flush=True)
while not os.path.exists("/sandbox/open"):
    pass
while True:
    peer = listener.accept()[0]
    peer.sendall(peer.recv(100))
    peer.close()
"""
"""Has room for one connection, or two, before it accepts any."""


@pytest.mark.slow
async def test_a_connection_that_takes_its_time_is_waited_for(box: Box) -> None:
    answers: list[bytes] = []

    async def call(number: int) -> None:
        stream = await box.dial(PORT)
        await stream.send(b"%d" % number)
        answers.append(await rest(stream))

    async with await box.start_code(CROWDED, RunOptions()) as process:
        async for _, data in process:
            assert data == b"up\n"
            break
        with anyio.move_on_after(0.2) as scope:
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(call, number)
        assert scope.cancelled_caught  # the ones that wait are cancelled, too
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
            await box.write_file("/sandbox/open", b"")
    assert sorted(answers) == [b"0", b"1", b"2", b"3"]


async def test_a_port_that_nobody_listens_on_is_refused(box: Box) -> None:
    with pytest.raises(DialFailed, match=str(PORT)):
        await box.dial(PORT)
    async with await serve(box, ECHO):
        stream = await box.dial(PORT)
        await stream.send(b"now")
        assert await exactly(stream, 3) == b"now"


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_port_that_cannot_be_is_refused(box: Box, port: int) -> None:
    with pytest.raises(InvalidSpec):
        await box.dial(port)


async def test_a_host_that_has_said_all_may_still_listen(box: Box) -> None:
    async with await serve(box, DIGEST):
        data = os.urandom(3 << 20)
        stream = await box.dial(PORT)
        await stream.send(data)
        await stream.send_eof()
        assert (await rest(stream)).decode() == hashlib.sha256(data).hexdigest()
        assert await stream.receive() == b""


async def test_a_program_that_has_said_all_may_still_listen(box: Box) -> None:
    half = (
        "def serve(peer):\n"
        "    peer.sendall(b'said'); peer.shutdown(socket.SHUT_WR)\n"
        "    with open('/sandbox/heard', 'wb') as file: file.write(peer.recv(100))\n"
        "    peer.close()\n"
    )
    async with await serve(box, half):
        stream = await box.dial(PORT)
        assert await rest(stream) == b"said"
        await stream.send(b"after your end")
        await stream.send_eof()
        heard = b""
        with anyio.fail_after(LIMIT):
            while not heard:
                entries = await box.list_files("/sandbox")
                if any(entry.size for entry in entries):
                    heard = b"".join([piece async for piece in box.read_file("/sandbox/heard")])
    assert heard == b"after your end"


async def test_much_arrives_whole(box: Box) -> None:
    async with await serve(box, POUR):
        stream = await box.dial(PORT)
        await stream.send(b"5000000")
        assert await rest(stream) == b"p" * 5_000_000


async def test_a_slow_reader_holds_up_nobody_but_its_own_program(box: Box) -> None:
    async with await serve(box, POUR):
        slow = await box.dial(PORT)
        await slow.send(b"8000000")
        assert await slow.receive()
        quick = await box.dial(PORT)
        await quick.send(b"2000000")
        assert len(await rest(quick)) == 2_000_000
        with anyio.fail_after(LIMIT):
            assert (await box.exec(RunOptions(argv=("echo", "free")))).stdout == "free\n"
            await box.ping()
        await slow.aclose()


async def test_a_slow_program_holds_up_nobody_but_its_own_sender(box: Box) -> None:
    deaf = "held = []\ndef serve(peer): held.append(peer)\n"
    async with await serve(box, deaf):
        stream = await box.dial(PORT)
        async with anyio.create_task_group() as group:
            group.start_soon(stream.send, bytes(16 << 20))
            with anyio.fail_after(LIMIT):
                assert (await box.exec(RunOptions(argv=("echo", "free")))).stdout == "free\n"
                await box.write_file("/sandbox/f", bytes(1 << 20))
            group.cancel_scope.cancel()
        await stream.aclose()
    await box.ping()


async def test_a_program_that_dies_ends_its_connections(box: Box) -> None:
    server = await serve(box, ECHO)
    stream = await box.dial(PORT)
    await stream.send(b"x")
    assert await exactly(stream, 1) == b"x"
    await server.signal(9)
    assert await rest(stream) == b""
    await server.wait()  # the kernel closes a dying program's connections before its listener
    with pytest.raises(DialFailed):
        await box.dial(PORT)


async def test_closing_is_seen_by_the_program(box: Box) -> None:
    tell = "def serve(peer):\n    peer.sendall(b'up'); print(repr(peer.recv(1)), flush=True)\n"
    async with await serve(box, tell) as server:
        stream = await box.dial(PORT)
        assert await exactly(stream, 2) == b"up"
        await stream.aclose()
        with anyio.fail_after(LIMIT):
            async for _, data in server:
                assert data == b"b''\n"
                break


async def test_many_connections_at_one_time(box: Box) -> None:
    async with await serve(box, ECHO):
        streams = [await box.dial(PORT) for _ in range(30)]
        for number, stream in enumerate(streams):
            await stream.send(b"%d" % number)
        for number, stream in enumerate(streams):
            assert await exactly(stream, len(str(number))) == b"%d" % number
        for stream in streams:
            await stream.aclose()


async def test_a_port_belongs_to_its_sandbox(make_box: MakeBox) -> None:
    one, other = await make_box(), await make_box()
    async with await serve(one, ECHO):
        with pytest.raises(DialFailed):
            await other.dial(PORT)
        async with await serve(other, POUR):
            stream = await other.dial(PORT)
            await stream.send(b"4")
            assert await rest(stream) == b"pppp"


async def test_a_cancelled_dial_leaves_the_sandbox_usable(box: Box) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await box.dial(PORT)
    assert scope.cancelled_caught
    await box.ping()


async def test_a_dial_that_is_cancelled_as_it_comes_closes_its_connection(
    backend: NativeBackend,
) -> None:
    tell = "def serve(peer):\n    print(repr(peer.recv(1)), flush=True)\n"
    async with opened(backend, name="cancelled-dial") as host:
        await host.ask(1, "hello", version=frames.VERSION)
        await host.say(request(2, "run_code", code=SERVER + tell + ACCEPT))
        with anyio.fail_after(LIMIT):
            while not host.output(2):
                await host.hear()
            await host.say(request(3, "dial", port=PORT) + frames.encode(3, frames.CANCEL))
            answer = await host.answer(3)
            assert answer is not None
            assert answer["code"] == "cancelled"
            while host.output(2) != b"up\nb''\n":
                assert not host.has_ended
                await host.hear()
            await host.settle()
