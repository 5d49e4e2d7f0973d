"""The one question by which the host looks whether a server in the sandbox is healthy."""

from __future__ import annotations

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.errors import DialFailed, InvalidSpec
from sandpool.guest import frames
from sandpool.service import Process
from tests.integration.guest.conftest import MakeBox
from tests.integration.native.conversation import opened, request

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0
PORT = 4000
HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"

SERVER = f"""
import socket, struct
listener = socket.create_server(("127.0.0.1", {PORT}))
print("up", flush=True)
while True:
    peer = listener.accept()[0]
    try:
        serve(peer)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


async def serve(box: Box, body: str) -> Process:
    """Start a server that does `body` with each connection, and return once it listens."""
    process = await box.start_code(f"def serve(peer):\n    {body}\n{SERVER}", RunOptions())
    async for _, data in process:
        assert data == b"up\n"
        return process
    raise AssertionError(f"the server did not start: {await process.wait()}")


async def probed(box: Box, question: str = "?") -> bytes:
    with anyio.fail_after(LIMIT):
        return await box.probe(PORT, question)


async def test_a_question_is_answered_with_a_head(box: Box) -> None:
    echo = "peer.sendall(b'HTTP/1.1 200 ' + peer.recv(100) + b'\\r\\n\\r\\nbody'); peer.close()"
    async with await serve(box, echo):
        assert await probed(box, "Fine \u00e9") == b"HTTP/1.1 200 Fine \xc3\xa9\r\n\r\n"
        assert await probed(box, "Again") == b"HTTP/1.1 200 Again\r\n\r\n"


async def test_a_head_may_come_byte_by_byte_on_a_connection_that_stays_open(box: Box) -> None:
    slow = f"global held; held = peer; [peer.send(bytes([each])) for each in {HEAD!r}]"
    async with await serve(box, slow):
        assert await probed(box) == HEAD


async def test_an_interim_head_is_not_the_answer(box: Box) -> None:
    interim = "HTTP/1.1 103 Early Hints\\r\\n\\r\\n"
    say = f"peer.sendall(b'{interim}'); peer.recv(1); peer.sendall({HEAD!r}); peer.close()"
    async with await serve(box, say):
        assert (await probed(box)).endswith(HEAD)


async def test_what_is_no_http_is_returned_though_the_server_waits(box: Box) -> None:
    async with await serve(box, "global held; held = peer; peer.sendall(b'SSH-2.0-x\\r\\n')"):
        assert await probed(box) == b"SSH-2.0-x\r\n"


async def test_a_head_without_end_is_cut(box: Box) -> None:
    async with await serve(box, "peer.sendall(b'HTTP/1.1 200 OK\\r\\n' + b'X: y\\r\\n' * 10_000)"):
        head = await probed(box)
    assert len(head) == frames.LONGEST_HEAD


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("peer.close()", b""),
        ("peer.recv(100); peer.close()", b""),
        ("peer.sendall(b'HTTP/1.1 2'); peer.recv(100); peer.close()", b"HTTP/1.1 2"),
        ("peer.setsockopt(1, 13, struct.pack('ii', 1, 0)); peer.close()", b""),
    ],
    ids=["at once", "after the question", "in its answer", "by a reset"],
)
async def test_a_server_that_closes_has_said_what_it_has(box: Box, body: str, said: bytes) -> None:
    async with await serve(box, body):
        assert await probed(box) == said


async def test_a_server_may_say_the_rest_of_its_answer(box: Box) -> None:
    rest = (
        f"peer.recv(100); peer.sendall({HEAD!r}); "
        "sent = [peer.send(b'x' * 10_000) for _ in range(20)]; peer.close(); "
        "print(sum(sent), flush=True)"
    )
    async with await serve(box, rest) as server:
        assert await probed(box) == HEAD
        with anyio.fail_after(LIMIT):
            async for _, data in server:
                assert data == b"200000\n"
                break


async def test_a_server_that_never_ends_its_answer_is_left(box: Box) -> None:
    endless = f"peer.sendall({HEAD!r})\n    while True: peer.sendall(bytes(65536))"
    async with await serve(box, endless) as server:
        assert await probed(box) == HEAD
        with anyio.fail_after(LIMIT):
            async for _, data in server:
                assert data in (b"BrokenPipeError\n", b"ConnectionResetError\n")
                break


async def test_a_server_that_keeps_its_connection_is_left_after_a_moment(box: Box) -> None:
    keep = f"peer.recv(100); peer.sendall({HEAD!r}); print(repr(peer.recv(1)), flush=True)"
    async with await serve(box, keep) as server:
        assert await probed(box) == HEAD
        with anyio.fail_after(LIMIT):
            async for _, data in server:
                assert data == b"b''\n"
                break


async def test_a_long_question_is_asked_whole(box: Box) -> None:
    count = (
        "size = 0\n"
        "    while size < 200_000: size += len(peer.recv(4096))\n"
        "    peer.sendall(b'HTTP/1.1 %d x\\r\\n\\r\\n' % size); peer.close()"
    )
    async with await serve(box, count):
        assert await probed(box, "q" * 200_000) == b"HTTP/1.1 200000 x\r\n\r\n"


async def test_a_server_that_does_not_answer_holds_up_nobody(box: Box) -> None:
    tell = "print('asked', flush=True); peer.recv(1); print(repr(peer.recv(1)), flush=True)"
    async with await serve(box, tell) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(box.probe, PORT, "?")
            with anyio.fail_after(LIMIT):
                async for _, data in server:
                    assert data == b"asked\n"
                    break
                assert (await box.exec(RunOptions(argv=("echo", "free")))).stdout == "free\n"
            group.cancel_scope.cancel()
        with anyio.fail_after(LIMIT):
            async for _, data in server:
                assert data == b"b''\n"  # given up, its connection is closed
                break
    await box.ping()


async def test_a_port_that_nobody_listens_on_is_refused(box: Box) -> None:
    with pytest.raises(DialFailed, match=f"port {PORT}: Connection refused"):
        await probed(box)


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_port_that_cannot_be_is_refused(box: Box, port: int) -> None:
    with pytest.raises(InvalidSpec):
        await box.probe(port, "?")


async def test_a_port_belongs_to_its_sandbox(make_box: MakeBox) -> None:
    one, other = await make_box(), await make_box()
    async with await serve(one, f"peer.sendall({HEAD!r})"):
        with pytest.raises(DialFailed):
            await probed(other)
        assert await probed(one) == HEAD


async def test_a_question_that_is_cancelled_as_it_comes_closes_its_connection(
    backend: NativeBackend,
) -> None:
    tell = "def serve(peer):\n    peer.recv(100); print(repr(peer.recv(1)), flush=True)\n"
    async with opened(backend, name="cancelled-probe") as host:
        await host.ask(1, "hello", version=frames.VERSION)
        await host.say(request(2, "run_code", code=tell + SERVER))
        with anyio.fail_after(LIMIT):
            while not host.output(2):
                await host.hear()
            both = request(3, "probe", port=PORT, question="?")
            await host.say(both + frames.encode(3, frames.CANCEL))
            answer = await host.answer(3)
            assert answer is not None
            assert answer["code"] == "cancelled"
            while host.output(2) != b"up\nb''\n":
                assert not host.has_ended
                await host.hear()
            await host.settle()
