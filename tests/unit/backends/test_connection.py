"""The host's end of the protocol, against peers that are slow, broken or hostile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool.backends.connection import GuestConnection
from sandpool.errors import FileMissing, SandboxDied, SandpoolError, StaleEpoch
from sandpool.guest import frames

pytestmark = pytest.mark.anyio


class Peer:
    """A guest's end that says exactly what the test wants."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.settimeout(5)
        self.causes: list[str] = []
        self.connection = GuestConnection(ours, self._lost)
        self._decoder = frames.Decoder(frames.FROM_HOST)

    def _lost(self, cause: str) -> SandboxDied:
        self.causes.append(cause)
        return SandboxDied(cause)

    def say(self, number: int, kind: int, payload: bytes = b"") -> None:
        self.sock.sendall(frames.encode(number, kind, payload))

    def answer(self, number: int, value: dict[str, object]) -> None:
        self.sock.sendall(frames.encode_json(number, frames.RESPONSE, value))

    def heard(self) -> list[tuple[int, int, bytes]]:
        return self._decoder.feed(self.sock.recv(1 << 20))


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.connection.close(SandboxDied("the test is over"))
    peer.sock.close()


async def test_a_request_is_answered_by_its_response(peer: Peer) -> None:
    exchange = peer.connection.open("ping", {"a": 1})
    [(number, kind, payload)] = peer.heard()
    assert kind == frames.REQUEST
    assert frames.decode_json(payload) == {"op": "ping", "a": 1}
    peer.answer(number, {"ok": True})
    assert await exchange.result() == {"ok": True}


async def test_answers_may_come_in_any_order(peer: Peer) -> None:
    first, second = peer.connection.open("a", {}), peer.connection.open("b", {})
    peer.answer(second.number, {"n": 2})
    peer.answer(first.number, {"n": 1})
    assert (await first.result(), await second.result()) == ({"n": 1}, {"n": 2})


async def test_requests_carry_the_epoch_once_it_is_set(peer: Peer) -> None:
    peer.connection.epoch = 7
    peer.connection.open("ping", {})
    [(_, _, payload)] = peer.heard()
    assert frames.decode_json(payload)["epoch"] == 7


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "stale_epoch", "message": "old"}, StaleEpoch),
        ({"code": "file_failed", "message": "gone", "errno": 2, "path": "/x"}, FileMissing),
        ({"code": "never heard of", "message": "?"}, SandpoolError),
    ],
)
async def test_an_error_becomes_its_exception(
    peer: Peer, error: dict[str, object], expected: type[Exception]
) -> None:
    exchange = peer.connection.open("x", {})
    peer.sock.sendall(frames.encode_json(exchange.number, frames.ERROR, error))
    with pytest.raises(expected):
        await exchange.result()
    assert peer.connection.lost is None


@pytest.mark.parametrize(
    "packet",
    [
        frames.HEADER.pack(frames.MAX_PAYLOAD + 1, 1, frames.STDOUT),
        frames.HEADER.pack(0, 1, 99),
        frames.HEADER.pack(0, 0, frames.EOF),
        frames.HEADER.pack(0, 1, frames.REQUEST),
        frames.encode(1, frames.RESPONSE, b"not json"),
        frames.encode(1, frames.RESPONSE, b"[]"),
        frames.encode(1, frames.ERROR, b"{}"),
        frames.encode(1, frames.ERROR, b'{"code":"file_failed","message":"m"}'),
        frames.encode(1, frames.EVENT, b"nope"),
        frames.encode(1, frames.CREDIT, b"abc"),
        frames.encode(4000, frames.EOF),
    ],
    ids=range(11),
)
async def test_a_violation_ends_this_sandbox(peer: Peer, packet: bytes) -> None:
    exchange = peer.connection.open("x", {})
    peer.sock.sendall(packet)
    with pytest.raises(SandboxDied, match="broke the protocol"):
        await exchange.result()
    with pytest.raises(SandboxDied):
        peer.connection.open("y", {})


async def test_more_output_than_its_credit_is_a_violation(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})  # nobody takes what arrives
    chunk = bytes(frames.CHUNK)
    with anyio.fail_after(60):
        for _ in range(frames.INITIAL_CREDIT // len(chunk)):
            peer.say(exchange.number, frames.STDOUT, chunk)
            await anyio.wait_writable(peer.sock)
        peer.say(exchange.number, frames.STDOUT, b"x")
        with pytest.raises(SandboxDied, match="credit"):
            await exchange.result()


async def test_credit_is_renewed_as_output_is_taken(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})
    peer.heard()
    for _ in range(frames.INITIAL_CREDIT // frames.CHUNK):
        peer.say(exchange.number, frames.STDOUT, bytes(frames.CHUNK))
        assert await exchange.receive() == (frames.STDOUT, bytes(frames.CHUNK))
    granted = sum(frames.decode_credit(p) for _, kind, p in peer.heard() if kind == frames.CREDIT)
    assert granted >= frames.INITIAL_CREDIT // 2


async def test_input_waits_for_the_guests_credit(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})
    got = 0
    async with anyio.create_task_group() as group:
        group.start_soon(exchange.send, bytes(frames.INITIAL_CREDIT + 5))
        while got < frames.INITIAL_CREDIT:
            await anyio.wait_readable(peer.sock)
            got += sum(len(p) for _, kind, p in peer.heard() if kind == frames.DATA)
        await anyio.wait_all_tasks_blocked()
        assert got == frames.INITIAL_CREDIT
        peer.sock.sendall(frames.encode_credit(exchange.number, 10))
    assert sum(len(p) for _, kind, p in peer.heard() if kind == frames.DATA) == 5


async def test_a_guest_that_does_not_read_costs_no_more_than_its_credit(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})
    with anyio.move_on_after(0.05) as scope:
        await exchange.send(bytes(64 * 1024 * 1024))
    assert scope.cancelled_caught
    assert peer.connection.unsent <= 2 * frames.INITIAL_CREDIT


async def test_the_end_of_the_guest_ends_every_request(peer: Peer) -> None:
    exchanges = [peer.connection.open("x", {}) for _ in range(3)]
    peer.sock.close()
    for exchange in exchanges:
        with pytest.raises(SandboxDied):
            await exchange.result()
    assert peer.causes == ["the guest ended"]


async def test_what_a_guest_wrote_before_it_died_is_read(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})  # never read by the peer: its end is a reset
    peer.answer(exchange.number, {"last": "words"})
    peer.sock.close()
    assert await exchange.result() == {"last": "words"}


async def test_a_cancel_that_is_not_confirmed_ends_the_sandbox(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})
    await exchange.cancel(0.01)
    assert peer.connection.lost is not None


async def test_frames_for_a_request_that_has_ended_are_dropped(peer: Peer) -> None:
    exchange = peer.connection.open("x", {})
    peer.answer(exchange.number, {})
    await exchange.result()
    peer.say(exchange.number, frames.STDOUT, b"late")
    after = peer.connection.open("y", {})
    peer.answer(after.number, {"fine": True})
    assert await after.result() == {"fine": True}


def test_a_connection_moves_to_the_loop_that_runs() -> None:
    peer = Peer()

    async def ask() -> dict[str, object]:
        exchange = peer.connection.open("ping", {})
        peer.answer(exchange.number, {"n": exchange.number})
        return await exchange.result()

    assert [asyncio.run(ask())["n"] for _ in range(3)] == [1, 2, 3]
    peer.connection.close(SandboxDied("over"))
    peer.sock.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(garbage=st.binary(min_size=1, max_size=4096))
async def test_garbage_never_raises_out_of_the_connection(garbage: bytes) -> None:
    peer = Peer()
    exchange = peer.connection.open("x", {})
    peer.sock.sendall(garbage)
    peer.sock.shutdown(socket.SHUT_WR)
    with anyio.fail_after(60):
        with suppress(SandpoolError):
            await exchange.result()
    peer.connection.close(SandboxDied("over"))
    peer.sock.close()


async def test_an_abandoned_request_is_cancelled_and_nobody_waits_for_it(peer: Peer) -> None:
    exchange = peer.connection.open("dial", {"port": 1})
    [(number, _, _)] = peer.heard()
    exchange.abandon(60)
    await anyio.lowlevel.checkpoint()
    assert [(each, kind) for each, kind, _ in peer.heard()] == [(number, frames.CANCEL)]
    peer.say(number, frames.DATA, b"what crossed our cancellation on the wire")
    peer.answer(number, {})
    assert await exchange.result() == {}
    exchange.abandon(60)
    assert peer.causes == []


async def test_an_abandonment_goes_out_with_the_next_request(peer: Peer) -> None:
    peer.connection.open("dial", {"port": 1}).abandon(60)
    peer.connection.open("bind", {"epoch": 2}, is_held=True)
    assert [kind for _, kind, _ in peer.heard()] == [frames.REQUEST]
    await anyio.lowlevel.checkpoint()
    assert [kind for _, kind, _ in peer.heard()] == [frames.CANCEL, frames.REQUEST]


async def test_a_guest_that_does_not_end_an_abandoned_request_is_given_up(peer: Peer) -> None:
    exchange = peer.connection.open("dial", {"port": 1})
    exchange.abandon(0)
    with pytest.raises(SandboxDied):
        await exchange.result()
    assert len(peer.causes) == 1


async def test_a_held_request_and_its_first_bytes_are_one_packet(peer: Peer) -> None:
    exchange = peer.connection.open("dial", {"port": 1}, is_held=True)
    await exchange.send(b"GET")
    assert [kind for _, kind, _ in peer.heard()] == [frames.REQUEST, frames.DATA]


async def test_a_held_request_is_not_sent_for_its_own_sake(peer: Peer) -> None:
    peer.connection.open("bind", {"epoch": 1}, is_held=True)
    await anyio.wait_all_tasks_blocked()
    peer.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.heard()
    peer.connection.open("ping", {})
    assert [frames.decode_json(payload)["op"] for *_, payload in peer.heard()] == ["bind", "ping"]


async def test_a_held_request_is_sent_once_its_answer_is_waited_for(peer: Peer) -> None:
    exchange = peer.connection.open("hello", {}, is_held=True)
    async with anyio.create_task_group() as group:
        group.start_soon(exchange.result)
        await anyio.wait_all_tasks_blocked()
        [(number, *_)] = peer.heard()
        peer.answer(number, {})


async def test_held_requests_that_nobody_waits_for_are_sent_before_they_pile_up(peer: Peer) -> None:
    peer.sock.settimeout(0)
    heard: list[tuple[int, int, bytes]] = []
    for epoch in range(1, 5_001):
        peer.connection.open("bind", {"epoch": epoch}, is_held=True)
        with suppress(BlockingIOError):
            heard += peer.heard()
        for number, _, _ in heard:
            peer.answer(number, {})
        heard.clear()
        await asyncio.sleep(0)
    assert not peer.causes
