"""The host's end of the protocol, against guests that their tenants have taken over.

Whatever a guest says, the host answers its callers with a value or a typed error, ends that sandbox
at its first violation and not before, holds no more than the protocol lets it send, and goes on
serving the others.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandpool.backends.base import RunOptions
from sandpool.backends.box import MAX_ENTRIES, GuestBox
from sandpool.backends.connection import Exchange
from sandpool.errors import FileTooLarge, SandboxDied, SandpoolError
from sandpool.guest import frames
from tests.fuzz.hostile import Frame, Peer, kinds, objects, payloads, peer, raw

pytestmark = pytest.mark.anyio

_SIOCOUTQ = 0x5411
_OPEN = 3
"""Requests that the host has made: 1, 2 and 3."""
_BOUND = 60.0
"""Seconds after which something hangs."""

bounded = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Referee:
    """The protocol's rules, said once more and in another way."""

    def __init__(self) -> None:
        self.over: set[int] = set()
        self._credit = dict.fromkeys(range(1, _OPEN + 1), frames.INITIAL_CREDIT)

    def allows(self, frame: Frame) -> bool:
        number, kind, payload = frame
        if kind not in frames.FROM_GUEST or len(payload) > frames.MAX_PAYLOAD or number == 0:
            return False
        if number > _OPEN:
            return False
        if number in self.over:
            return True
        if kind in frames.STREAM_KINDS:
            self._credit[number] -= len(payload)
            return len(payload) > 0 and self._credit[number] >= 0
        if kind == frames.CREDIT:
            return len(payload) == 4
        if kind == frames.EOF:
            return True
        value = _parse(payload)
        if kind in (frames.RESPONSE, frames.ERROR):
            self.over.add(number)
        return value is not None and (kind != frames.ERROR or _is_error(value))


def _parse(payload: bytes) -> dict[str, object] | None:
    try:
        value: object = json.loads(payload.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _is_error(value: dict[str, object]) -> bool:
    if not isinstance(value.get("code"), str) or not isinstance(value.get("message"), str):
        return False
    is_about_a_file = value["code"] == "file_failed"
    return not is_about_a_file or (
        isinstance(value.get("errno"), int) and isinstance(value.get("path", ""), str)
    )


numbers = st.integers(1, _OPEN) | st.sampled_from([0, _OPEN + 1, 2**32 - 1])


@bounded
@given(
    said=st.lists(st.tuples(numbers, kinds, payloads), max_size=12),
    cuts=st.lists(st.integers(1, 100_000), max_size=6),
)
@example(said=[(1, frames.STDOUT, bytes(frames.MAX_PAYLOAD))] * 2, cuts=[])
@example(said=[(1, frames.STDOUT, bytes(frames.MAX_PAYLOAD))] * 3, cuts=[])
@example(said=[(1, frames.RESPONSE, b"{}"), (1, frames.RESPONSE, b"[]")], cuts=[])
@example(said=[(2, frames.DATA, b"x" * (frames.MAX_PAYLOAD + 1))], cuts=[5])
async def test_a_guest_dies_of_its_first_violation_and_of_nothing_else(
    said: list[Frame], cuts: list[int]
) -> None:
    referee = Referee()
    is_broken = not all(referee.allows(frame) for frame in said)
    with peer() as hostile, peer() as neighbour:
        exchanges = [hostile.connection.open("x", {}) for _ in range(_OPEN)]
        data = b"".join(map(raw, said))
        with anyio.fail_after(_BOUND):
            for cut in cuts:
                await hostile.say(data[:cut])
                data = data[cut:]
            await hostile.say(data)
            await hostile.say(b"")
            await _settle(hostile, neighbour)
            assert (hostile.connection.lost is not None) == is_broken
            if not is_broken:
                assert {one.number for one in exchanges if one.is_over} == referee.over
                hostile.sock.close()
            for exchange in exchanges:
                await _end(exchange)


async def _settle(hostile: Peer, neighbour: Peer) -> None:
    """Let the host read what it has been sent; meanwhile it serves the neighbour."""
    async with anyio.create_task_group() as group:
        group.start_soon(neighbour.behave)
        # A quiet guest's last word is read when a request of the same loop has gone around after
        # the buffer between them is empty.
        while hostile.connection.lost is None and await _is_unread(hostile):
            await neighbour.box.ping()
        for _ in range(3):
            await neighbour.box.ping()
        group.cancel_scope.cancel()


async def _is_unread(hostile: Peer) -> bool:
    """Whether the host has still something of the guest's to read."""
    await asyncio.sleep(0)
    unsent = fcntl.ioctl(hostile.sock, _SIOCOUTQ, bytes(4))
    return int.from_bytes(unsent, sys.byteorder) > 0


async def _end(exchange: Exchange) -> None:
    """Take all of it, as callers do."""
    with suppress(SandpoolError):
        while await exchange.receive() is not None:
            pass
        await exchange.result()
    assert exchange.is_over


Call = Callable[[GuestBox], Awaitable[object]]


async def _read(box: GuestBox) -> None:
    async for _ in box.read_file("/f"):
        pass


async def _process(box: GuestBox) -> None:
    async with await box.start(RunOptions(argv=("x",))) as run:
        async for _ in run:
            pass
        await run.wait()


async def _dial(box: GuestBox) -> None:
    relay = await box.dial(80)
    while await relay.receive():
        pass
    await relay.aclose()


CALLS: dict[str, Call] = {
    "ping": GuestBox.ping,
    "run_code": lambda box: box.run_code("1", RunOptions(max_output=10)),
    "exec": lambda box: box.exec(RunOptions(argv=("x",))),
    "process": _process,
    "dial": _dial,
    "probe": lambda box: box.probe(80, "?"),
    "open_context": lambda box: box.open_context(env={}, cwd=None),
    "run_in_context": lambda box: box.run_in_context("c", "1", timeout=None, max_output=10),
    "list_contexts": GuestBox.list_contexts,
    "read_file": _read,
    "write_file": lambda box: box.write_file("/f", b"x" * 1000),
    "list_files": lambda box: box.list_files("/d"),
    "stat_file": lambda box: box.stat_file("/f"),
    "make_dir": lambda box: box.make_dir("/d"),
    "kill_all": GuestBox.kill_all,
}

Said = list[tuple[int, bytes]]


def _last(before: Said, kind: int, value: dict[str, object]) -> Said:
    return [*before, (kind, json.dumps(value).encode())]


answers = st.lists(
    st.tuples(st.sampled_from(sorted(frames.FROM_GUEST)), payloads), max_size=4
) | st.builds(
    _last,
    st.lists(st.tuples(st.sampled_from(sorted(frames.STREAM_KINDS)), payloads), max_size=2),
    st.sampled_from([frames.RESPONSE, frames.ERROR, frames.EVENT]),
    objects,
)


@pytest.mark.parametrize("name", CALLS)
@settings(bounded, max_examples=40)
@given(answer=answers)
async def test_whatever_a_guest_answers_a_call_returns_or_raises_what_it_says_it_raises(
    name: str, answer: Said
) -> None:
    with peer() as hostile:

        async def guest() -> None:
            await hostile.hear()
            await hostile.say(b"".join(raw((1, kind, payload)) for kind, payload in answer))
            hostile.sock.close()

        with anyio.fail_after(_BOUND):
            async with anyio.create_task_group() as group:
                group.start_soon(guest)
                with suppress(SandpoolError):
                    await CALLS[name](hostile.box)
        with pytest.raises(SandboxDied), anyio.fail_after(_BOUND):
            await hostile.box.ping()


FLOODS = {
    "bytes": [(frames.STDOUT, b"x")],
    "alternating bytes": [(frames.STDOUT, b"x" * 8), (frames.STDERR, b"x" * 8)],
    "chunks": [(frames.DATA, b"x" * frames.CHUNK)],
    "ends": [(frames.EOF, b"")],
    "small events": [(frames.EVENT, b"{}")],
    "large events": [(frames.EVENT, json.dumps({"a": "b" * 200_000}).encode())],
    "deep events": [(frames.EVENT, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}")],
    "credit": [(frames.CREDIT, b"\xff" * 4)],
}
_MOST = 32 * 1024 * 1024
"""Bytes that one request may make the host hold: events, credit, and what is being read."""
_ROUND = 64 * 1024


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("bytes", "deep events")))
        for name in FLOODS
    ],
)
async def test_no_guest_makes_the_host_hold_more_than_it_is_granted(name: str) -> None:
    pattern = b"".join(raw((1, kind, payload)) for kind, payload in FLOODS[name])
    some = pattern * (1 + _ROUND // len(pattern))
    with peer() as hostile:
        hostile.connection.open("x", {})  # nobody takes what arrives
        tracemalloc.start()
        try:
            with anyio.fail_after(100):
                for _ in range(20 if pattern[:1] == b"\0" and len(pattern) == 13 else 400):
                    await hostile.say(some)
                    if hostile.connection.lost is not None:
                        break
            assert tracemalloc.get_traced_memory()[1] < _MOST
        finally:
            tracemalloc.stop()


_ENTRY = b'{"name":"a","path":"/a","type":"file","size":0,"mode":0,"mtime":0}\n'


async def _list_for_ever(hostile: Peer) -> None:
    """Send entry after entry, as fast as the host grants credit, until it hangs up."""
    number = (await hostile.hear())[0][0]
    chunk = _ENTRY * (frames.CHUNK // len(_ENTRY))
    credit = frames.INITIAL_CREDIT
    while True:
        while credit < len(chunk):
            heard = await hostile.hear()
            if not heard or any(kind == frames.CANCEL for _, kind, _ in heard):
                await hostile.say(frames.encode_json(number, frames.RESPONSE, {}))
                return
            credit += sum(frames.decode_credit(one) for _, k, one in heard if k == frames.CREDIT)
        await hostile.say(frames.encode(number, frames.DATA, chunk))
        credit -= len(chunk)


async def test_a_listing_without_end_is_refused_and_others_are_served_meanwhile() -> None:
    pings = 0
    with peer() as hostile, peer() as neighbour:
        async with anyio.create_task_group() as group:
            group.start_soon(_list_for_ever, hostile)
            behaving = anyio.CancelScope()

            async def serve() -> None:
                nonlocal pings
                with behaving:
                    async with anyio.create_task_group() as inner:
                        inner.start_soon(neighbour.behave)
                        while True:
                            await neighbour.box.ping()
                            pings += 1

            group.start_soon(serve)
            with anyio.fail_after(100), pytest.raises(FileTooLarge):
                await hostile.box.list_files("/")
            behaving.cancel()
    assert pings > MAX_ENTRIES // 10_000


async def test_a_line_without_end_is_refused() -> None:
    long = frames.encode(1, frames.DATA, b"[" * (frames.CHUNK * 4))
    with peer() as hostile:
        async with anyio.create_task_group() as group:
            group.start_soon(hostile.say, long * 2 + frames.encode_json(1, frames.RESPONSE, {}))
            with anyio.fail_after(_BOUND), pytest.raises(FileTooLarge):
                await hostile.box.list_files("/")
