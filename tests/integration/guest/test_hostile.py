"""A sandbox whose guest has been taken over: what it says costs it its life, and nothing hangs.

The guest's end is the test's.  What a single frame can break is in
`tests/unit/backends/test_connection.py`; here are whole calls.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import pytest

from sandpool.backends.base import BoxSpec, Limits, RunOptions
from sandpool.backends.box import GuestBox
from sandpool.backends.connection import GuestConnection
from sandpool.errors import GuestError, SandboxDied, SandpoolError
from sandpool.guest import frames

pytestmark = pytest.mark.anyio

LIMIT = 60.0


class Keeper:
    """Knows a sandbox that is nothing but a socket."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {}

    def was_oom_killed(self) -> bool:
        return False

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        return {"RLIMIT_NOFILE": limits.open_files}

    async def set_limits(self, limits: Limits) -> None:
        return

    async def end(self) -> None:
        return


class Captive:
    """A box, and the end that its guest would have."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.box = GuestBox("captive", BoxSpec())
        self.connection = GuestConnection(ours, self.box.note_death)
        self.box.begin(self.connection, Keeper())
        self.deaths: list[SandboxDied] = []
        self.box.on_death(self.deaths.append)
        self._decoder = frames.Decoder(frames.FROM_HOST)

    async def heard(self) -> list[tuple[int, int, bytes]]:
        await anyio.wait_readable(self.sock)
        return self._decoder.feed(self.sock.recv(1 << 20))

    async def request(self) -> int:
        """Wait for the next REQUEST and return its number."""
        while True:
            for number, kind, _ in await self.heard():
                if kind == frames.REQUEST:
                    return number

    async def say(self, packet: bytes) -> None:
        """Send all of `packet`, or as much as the host takes before it hangs up."""
        view = memoryview(packet)
        while view and self.connection.lost is None:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.sock)
            except BrokenPipeError:
                return

    async def answer(self, number: int, value: dict[str, object]) -> None:
        await self.say(frames.encode_json(number, frames.RESPONSE, value))


@pytest.fixture
def captive() -> Iterator[Captive]:
    captive = Captive()
    yield captive
    captive.connection.close(SandboxDied("the test is over"))
    captive.sock.close()


async def read(box: GuestBox) -> None:
    async for _ in box.read_file("/f"):
        pass


async def run_to_the_end(box: GuestBox) -> None:
    process = await box.start(RunOptions(argv=("x",)))
    await process.wait()


async def run_cell(box: GuestBox) -> None:
    await box.run_in_context("ctx", "1", timeout=None, max_output=None)


async def use_terminal(box: GuestBox) -> None:
    process = await box.open_pty(RunOptions(argv=("x",)), rows=24, cols=80)
    await process.wait()


Call = Callable[[GuestBox], Awaitable[object]]

CALLS: dict[str, Call] = {
    "ping": lambda box: box.ping(),
    "run_code": lambda box: box.run_code("1", RunOptions()),
    "exec": lambda box: box.exec(RunOptions(argv=("x",))),
    "start": run_to_the_end,
    "pty": use_terminal,
    "dial": lambda box: box.dial(80),
    "probe": lambda box: box.probe(80, "?"),
    "open_context": lambda box: box.open_context(env={}, cwd=None),
    "run_in_context": run_cell,
    "close_context": lambda box: box.close_context("ctx"),
    "list_contexts": lambda box: box.list_contexts(),
    "read_file": read,
    "write_file": lambda box: box.write_file("/f", bytes(4 << 20)),
    "list_files": lambda box: box.list_files("/"),
    "stat_file": lambda box: box.stat_file("/f"),
    "make_dir": lambda box: box.make_dir("/d"),
    "move_file": lambda box: box.move_file("/a", "/b"),
    "remove_file": lambda box: box.remove_file("/f"),
    "kill_all": lambda box: box.kill_all(),
}

ENDINGS = {
    "nothing": b"",
    "half a header": frames.HEADER.pack(10, 1, frames.STDOUT)[:5],
    "half a frame": frames.encode(1, frames.STDOUT, b"0123456789")[:-3],
    "a request never made": frames.encode(77, frames.STDOUT, b"x"),
    "garbage": bytes(range(255, 0, -1)) * 9,
    "an endless frame": frames.HEADER.pack(0xFFFF_FFFF, 1, frames.STDOUT),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_every_call_that_is_pending_fails_when_the_guest_ends(
    captive: Captive, ending: str
) -> None:
    failed: list[str] = []

    async def attempt(name: str, call: Call) -> None:
        with pytest.raises(SandboxDied):
            await call(captive.box)
        failed.append(name)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            for name, call in CALLS.items():
                group.start_soon(attempt, name, call)
            await anyio.wait_all_tasks_blocked()
            await captive.say(ENDINGS[ending])
            captive.sock.close()
    assert sorted(failed) == sorted(CALLS)
    assert len(captive.deaths) == 1
    assert captive.box.died is captive.deaths[0]


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_after_a_death_fails_at_once(captive: Captive, name: str) -> None:
    captive.connection.fail("it died")
    with anyio.fail_after(LIMIT), pytest.raises(SandboxDied):
        await CALLS[name](captive.box)


async def answered(captive: Captive, name: str, packet: Callable[[int], bytes]) -> None:
    """Make a call, answer it with `packet`, and raise what the call does."""
    failure: SandpoolError | None = None

    async def guest() -> None:
        await captive.say(packet(await captive.request()))

    async with anyio.create_task_group() as group:
        group.start_soon(guest)
        try:
            with anyio.fail_after(LIMIT):
                await CALLS[name](captive.box)
        except SandpoolError as error:
            failure = error
    if failure is not None:
        raise failure


def response(value: dict[str, Any]) -> Callable[[int], bytes]:
    """Return what answers a request with `value`."""
    return lambda number: frames.encode_json(number, frames.RESPONSE, value)


EXIT: dict[str, Any] = {
    "exit_code": 0,
    "signal": None,
    "timed_out": False,
    "truncated": False,
    "duration": 0.1,
}
CELL: dict[str, Any] = {"status": "ok", "count": 1, "duration": 0.1, "truncated": False}


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("exec", {}),
    ("exec", EXIT | {"exit_code": 256}),
    ("exec", EXIT | {"exit_code": -1}),
    ("exec", EXIT | {"exit_code": "0"}),
    ("exec", EXIT | {"exit_code": None}),
    ("exec", EXIT | {"signal": 0}),
    ("exec", EXIT | {"signal": 65}),
    ("exec", EXIT | {"duration": -1}),
    ("exec", EXIT | {"timed_out": "no"}),
    ("start", EXIT | {"exit_code": 1 << 70}),
    ("pty", EXIT | {"truncated": 1}),
    ("run_in_context", {}),
    ("run_in_context", CELL | {"status": "splendid"}),
    ("run_in_context", CELL | {"error": "text"}),
    ("run_in_context", CELL | {"error": {"name": "E"}}),
    ("run_in_context", CELL | {"count": "1"}),
    ("open_context", {}),
    ("open_context", {"context": ""}),
    ("open_context", {"context": "c" * 65}),
    ("open_context", {"context": 7}),
    ("list_contexts", {"contexts": None}),
    ("list_contexts", {"contexts": [{}]}),
    ("list_contexts", {"contexts": [{"context": "c"}] * 1025}),
    ("stat_file", {"entry": {}}),
    ("stat_file", {"entry": {"name": "f", "path": "/f", "type": "door"}}),
    ("probe", {}),
    ("probe", {"head": None}),
    ("probe", {"head": "x" * 32_769}),
    ("kill_all", {"killed": -1}),
    ("kill_all", {"killed": "many"}),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
async def test_a_malformed_report_ends_the_sandbox(
    captive: Captive, name: str, value: dict[str, Any]
) -> None:
    with pytest.raises(SandboxDied):
        await answered(captive, name, response(value))
    assert len(captive.deaths) == 1


@pytest.mark.parametrize("size", [None, -1, "1", 1.5, True])
async def test_a_malformed_size_ends_the_sandbox(captive: Captive, size: object) -> None:
    value = {"size": size}
    with pytest.raises(SandboxDied):
        await answered(captive, "write_file", response(value))


@pytest.mark.parametrize("line", [b"{}", b"[", b"null", b'{"name":"f"}', b"\xff\xfe", b"1,2"])
async def test_a_malformed_listing_ends_the_sandbox(captive: Captive, line: bytes) -> None:
    def listing(number: int) -> bytes:
        data = frames.encode(number, frames.DATA, line + b"\n")
        end = frames.encode(number, frames.EOF)
        return data + end + frames.encode_json(number, frames.RESPONSE, {"count": 1})

    with pytest.raises(SandboxDied):
        await answered(captive, "list_files", listing)


async def test_a_display_that_is_none_is_left_out(captive: Captive) -> None:
    events: list[dict[str, Any]] = [
        {},
        {"display": None},
        {"display": [1]},
        {"display": {"text/plain": 5}},
        {"pid": "x"},
    ]

    def cell(number: int) -> bytes:
        packet = b"".join(frames.encode_json(number, frames.EVENT, event) for event in events)
        return packet + frames.encode_json(number, frames.RESPONSE, CELL)

    await answered(captive, "run_in_context", cell)
    assert captive.deaths == []


async def test_an_error_never_heard_of_is_an_error_of_the_guest(captive: Captive) -> None:
    error = {"code": "SystemExit", "message": "m" * 100_000, "errno": "x"}
    with pytest.raises(GuestError) as told:
        await answered(captive, "exec", lambda n: frames.encode_json(n, frames.ERROR, error))
    assert len(str(told.value)) < 5000
    assert captive.deaths == []


async def test_frames_out_of_order_after_an_answer_change_nothing(captive: Captive) -> None:
    def answer(number: int) -> bytes:
        late = frames.encode(number, frames.STDOUT, b"late") + frames.encode(number, frames.EOF)
        again = frames.encode_json(number, frames.RESPONSE, EXIT | {"exit_code": 1})
        return frames.encode_json(number, frames.RESPONSE, EXIT) + late + again

    await answered(captive, "exec", answer)
    await answered(captive, "ping", response({}))
    assert captive.deaths == []


@pytest.mark.parametrize("name", ["run_code", "exec", "start", "pty", "run_in_context"])
async def test_an_event_stream_without_end_is_cut_off(captive: Captive, name: str) -> None:
    def flood(number: int) -> bytes:
        return frames.encode_json(number, frames.EVENT, {"x": "y" * 200_000}) * 100

    with pytest.raises(SandboxDied, match="too many events"):
        await answered(captive, name, flood)


async def test_a_cancel_that_is_long_in_coming_holds_up_no_other_call(captive: Captive) -> None:
    scope = anyio.CancelScope()
    is_over = anyio.Event()

    async def run() -> None:
        with scope:
            await captive.box.exec(RunOptions(argv=("x",)))
        is_over.set()

    async with anyio.create_task_group() as group:
        with anyio.fail_after(LIMIT):
            group.start_soon(run)
            number = await captive.request()
            scope.cancel()
            assert [kind for _, kind, _ in await captive.heard()] == [frames.CANCEL]
            await answered(captive, "ping", response({}))
            assert not is_over.is_set(), "what the run started may still be there"
            error = {"code": "cancelled", "message": "at last"}
            await captive.say(frames.encode_json(number, frames.ERROR, error))
            await is_over.wait()
    assert captive.deaths == []


async def test_a_violation_in_one_sandbox_is_nothing_to_another(captive: Captive) -> None:
    other = Captive()
    try:
        with pytest.raises(SandboxDied):
            await answered(captive, "exec", lambda n: frames.encode(n, frames.RESPONSE, b"{"))
        await answered(other, "ping", response({}))
        assert other.deaths == []
    finally:
        other.connection.close(SandboxDied("the test is over"))
        other.sock.close()


async def test_small_writes_before_an_event_are_no_violation(captive: Captive) -> None:
    stream = captive.connection.open("dial", {"port": 80})
    number = await captive.request()
    await captive.say(frames.encode(number, frames.DATA, b"x") * 5000)
    await captive.say(frames.encode(number, frames.EOF))
    await captive.answer(number, {})
    await stream.result()
    received: list[tuple[int, bytes]] = []
    while not received or received[-1][0] != frames.EOF:
        frame = await stream.receive()
        assert frame is not None
        received.append(frame)
    # However many pieces they are kept in: none is lost, and the end comes last.
    assert b"".join(data for kind, data in received if kind == frames.DATA) == b"x" * 5000


async def test_empty_frames_do_not_pile_up(captive: Captive) -> None:
    exchange = captive.connection.open("exec", {"argv": ["x"]})
    number = await captive.request()
    packet = frames.encode(number, frames.STDOUT) * 20_000
    with anyio.fail_after(LIMIT):
        while captive.connection.lost is None:
            await captive.say(packet)
    with pytest.raises(SandpoolError):
        await exchange.result()
