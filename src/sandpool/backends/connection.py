"""The host's end of the guest's protocol: one connection, many exchanges at once.

Everything that arrives is hostile input: it is bounded, validated, and the first violation closes
the connection, which ends that sandbox and nothing else.

A connection belongs to no event loop.  It attaches itself to the loop that runs when it is used,
and moves when another one runs: one manager may live through several `asyncio.run` calls.

    C1  An exchange is in `_exchanges` from its REQUEST until its RESPONSE, ERROR or the loss.
    C2  The guest never sends more stream bytes on an exchange than it has been granted.
    C3  After `_lost` is set nothing is sent, and every exchange has ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from sandpool.backends import callbacks
from sandpool.backends.inheritance import keep_from_forks
from sandpool.errors import (
    ContextNotFound,
    DialFailed,
    FileTooLarge,
    GuestError,
    InvalidSpec,
    NoCapacity,
    SandboxDied,
    SandpoolError,
    StaleEpoch,
    Unsupported,
    file_error,
)
from sandpool.guest import frames

_READ = 256 * 1024
_GRANT_AT = frames.INITIAL_CREDIT // 2
_MAX_EXCHANGES = 4096
_MAX_EVENTS = 4096
_MOST_HELD = 4096
"""Bytes that wait for others to be sent with, and that nobody may come to wait for."""
_SMALL = 4096
_CONTROL_ALLOWANCE = 16 * 1024 * 1024

Frame = tuple[int, bytes]
Sink = Callable[[int, bytes], None]

_CODES: dict[str, type[SandpoolError]] = {
    "stale_epoch": StaleEpoch,
    "file_too_large": FileTooLarge,
    "dial_failed": DialFailed,
    "context_not_found": ContextNotFound,
    "unsupported": Unsupported,
    "bad_request": InvalidSpec,
    "busy": NoCapacity,
}


class Exchange:
    """One request in progress.

    Stream frames go to `sink` as they arrive, or wait in a queue for `receive`; either way the
    guest's credit is renewed only as they are taken.
    """

    def __init__(self, connection: GuestConnection, number: int, sink: Sink | None) -> None:
        """Make it; `GuestConnection.open` does."""
        self._connection = connection
        self.number = number
        self._sink = sink
        self._queue: deque[Frame] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        self._granted = frames.INITIAL_CREDIT
        """Stream bytes that the guest may still send.  Invariant C2: never negative."""
        self._taken = 0
        """Stream bytes taken since the last CREDIT that we sent."""
        self._credit = frames.INITIAL_CREDIT
        """Stream bytes that we may still send."""
        self._control_left = _CONTROL_ALLOWANCE
        self._queued_events = 0
        """Frames in the queue that no credit bounds."""
        self._response: dict[str, Any] | None = None
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the guest has closed it, or the connection is lost."""
        return self._response is not None or self._error is not None

    async def receive(self) -> Frame | None:
        """Return the next STDOUT, STDERR, DATA, EOF or EVENT frame; None once all have been taken.

        Raises what the request failed with.
        """
        while not self._queue:
            if self.is_over:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait()
        kind, payload = self._queue.popleft()
        self._queued_events -= kind not in frames.STREAM_KINDS
        self._take(kind, payload)
        return kind, payload

    async def result(self) -> dict[str, Any]:
        """Wait for the RESPONSE and return it; raises what the request failed with."""
        while not self.is_over:
            await self._wait()
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response

    async def send(self, data: bytes) -> None:
        """Send DATA, waiting for credit; returns early if the exchange ends meanwhile."""
        view = memoryview(data)
        while view:
            while self._credit <= 0 and not self.is_over:
                await self._wait()
            if self.is_over:
                return
            piece = view[: min(len(view), frames.CHUNK, self._credit)]
            self._credit -= len(piece)
            self._connection.send(frames.encode(self.number, frames.DATA, bytes(piece)))
            view = view[len(piece) :]
            await self._connection.drain()

    def send_eof(self) -> None:
        """End our stream."""
        if not self.is_over:
            self._connection.send(frames.encode(self.number, frames.EOF))

    def control(self, **fields: object) -> None:
        """Send a CONTROL frame."""
        if not self.is_over:
            self._connection.send(frames.encode_json(self.number, frames.CONTROL, fields))

    async def cancel(self, grace: float) -> None:
        """Cancel the request and wait until the guest has confirmed it.

        A guest that does not answer within `grace` seconds has lost its sandbox.
        """
        if self.is_over:
            return
        self._connection.send(self._give_up())
        # Cancel: the caller is being cancelled already; this wait is shielded and bounded.
        with anyio.move_on_after(grace, shield=True):
            try:
                await self.result()
            except SandpoolError:
                return
        self._need_over()

    def abandon(self, grace: float) -> None:
        """Cancel the request as `cancel` does, and leave the wait for the guest to a timer."""
        if not self.is_over:
            self._connection.later(grace, self._need_over)
            self._connection.send_soon(self._give_up())

    def _give_up(self) -> bytes:
        """Take nothing more, and return the frame that says so."""
        self._sink = _discard
        self._queue.clear()
        self._queued_events = 0
        return frames.encode(self.number, frames.CANCEL)

    def _need_over(self) -> None:
        if not self.is_over:
            self._connection.fail("the guest did not cancel a request in time")

    def deliver(self, kind: int, payload: bytes) -> None:
        """Take one frame from the guest; called by the connection.  Raises FrameError."""
        if kind == frames.CREDIT:
            self._credit += frames.decode_credit(payload)
        elif kind == frames.RESPONSE:
            self._response = frames.decode_json(payload)
        elif kind == frames.ERROR:
            self._error = _to_exception(frames.decode_json(payload))
        else:
            self._deliver_stream(kind, payload)
            if self._sink is not None:
                return  # it has been taken: nobody waits for it
        self._wake()

    def _deliver_stream(self, kind: int, payload: bytes) -> None:
        if kind in frames.STREAM_KINDS:
            if not payload:
                raise frames.FrameError("an empty frame of a stream, which no credit bounds")
            self._granted -= len(payload)
            if self._granted < 0:
                raise frames.FrameError("the guest sent more than its credit")
        else:
            if kind == frames.EVENT:
                frames.decode_json(payload)
            self._control_left -= len(payload)
            if self._control_left < 0 or self._queued_events > _MAX_EVENTS:
                raise frames.FrameError("the guest sent too many events")
        if self._sink is not None:
            self._sink(kind, payload)
            self._take(kind, payload)
        else:
            self._enqueue(kind, payload)

    def _enqueue(self, kind: int, payload: bytes) -> None:
        if kind not in frames.STREAM_KINDS:
            self._queued_events += 1
        elif self._queue and self._queue[-1][0] == kind:
            # Credit counts bytes, but frames of one byte each would cost a hundred to keep.
            before = self._queue[-1][1]
            if len(before) + len(payload) <= _SMALL:
                payload = before + payload
                self._queue.pop()
        self._queue.append((kind, payload))

    def fail(self, error: BaseException) -> None:
        """End it; called by the connection when it is lost."""
        if not self.is_over:
            self._error = error
            self._wake()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind in frames.STREAM_KINDS:
            self._taken += len(payload)
            if self._taken >= _GRANT_AT and not self.is_over:
                self._granted += self._taken
                self._connection.send(frames.encode_credit(self.number, self._taken))
                self._taken = 0

    async def _wait(self) -> None:
        self._connection.expect()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class GuestConnection:
    """One stream to one guest."""

    def __init__(
        self,
        sock: socket.socket,
        on_lost: Callable[[str], SandboxDied],
        *,
        unwrap: Callable[[bytes], bytes] = bytes,
        on_end: Callable[[], None] | None = None,
        on_request: Callable[[str, Mapping[str, object]], None] | None = None,
    ) -> None:
        """Speak over `sock`; `on_lost` says, given a cause, what the sandbox died of.

        `unwrap` returns what is the guest's of the bytes that arrive, or raises FrameError.
        `on_end` is called when the guest's side of the stream ends, and sees to it that `fail` is
        called, with the cause; by default the cause is just that.  `on_request` is told of each
        request that is opened, and its fields.
        """
        sock.setblocking(False)
        keep_from_forks(sock)
        self._sock = sock
        self._fd = sock.fileno()
        """For the loop's selector, which describes a socket at length whenever it looks for it."""
        self._on_lost = on_lost
        self._unwrap = unwrap
        self._on_end = on_end
        self._on_request = on_request
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoder = frames.Decoder(frames.FROM_GUEST)
        self._exchanges: dict[int, Exchange] = {}  # Invariant C1
        self._last = 0
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._held = b""
        """Frames that go out with the next ones, or once somebody waits for the guest."""
        self._drained: asyncio.Future[None] | None = None
        self._lost: SandboxDied | None = None  # Invariant C3
        self.epoch: int | None = None
        """Carried by every request once `bind` has set it."""

    @property
    def lost(self) -> SandboxDied | None:
        """Why it is closed, or None while it is open."""
        return self._lost

    @property
    def unsent(self) -> int:
        """Bytes that wait until the guest reads."""
        return self._unsent_size

    def attach(self) -> None:
        """Listen on the running event loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop or self._lost is not None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
        self._loop = loop
        self._drained = None
        callbacks.add_reader(loop, self._fd, self._readable)
        if self._unsent:
            callbacks.add_writer(loop, self._fd, self._writable)

    def open(
        self,
        op: str,
        fields: Mapping[str, object],
        sink: Sink | None = None,
        *,
        is_held: bool = False,
    ) -> Exchange:
        """Send a request; `SandboxDied` if the connection is lost.

        One that is held goes out together with the next frame, or once somebody waits for the
        guest: each packet wakes it, which may cost us the processor.
        """
        self.attach()
        if self._lost is not None:
            raise self._lost
        if len(self._exchanges) >= _MAX_EXCHANGES:
            raise NoCapacity(f"{_MAX_EXCHANGES} requests are in progress in this sandbox")
        if self._on_request is not None:
            self._on_request(op, fields)
        number = self._next_number()
        exchange = Exchange(self, number, sink)
        packet = frames.encode(number, frames.REQUEST, self._as_json(op, fields))
        self._exchanges[number] = exchange
        if is_held and len(self._held) < _MOST_HELD:
            self._held += packet
        else:
            self.send(packet)
        return exchange

    def _as_json(self, op: str, fields: Mapping[str, object]) -> bytes:
        if not fields and self.epoch is not None:
            # This is what most hand-overs say, and an encoder would be a tenth of them.
            return f'{{"op":"{op}","epoch":{self.epoch}}}'.encode()
        value: dict[str, object] = {"op": op, **fields}
        if self.epoch is not None:
            value.setdefault("epoch", self.epoch)
        return frames.as_json(value)

    def expect(self) -> None:
        """Be ready for what the guest says on the running event loop, and send what was held."""
        self.attach()
        self._send_held()

    def _send_held(self) -> None:
        if self._held:
            self.send(b"")

    def send_soon(self, packet: bytes) -> None:
        """Send whole frames together with the next ones, or in the loop's next turn."""
        self.attach()
        if self._lost is None and self._loop is not None:
            callbacks.call_soon(self._loop, self._send_held)
            self._held += packet

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, that many seconds from now."""
        self.attach()
        if self._loop is not None:
            callbacks.call_later(self._loop, seconds, callback)

    def _next_number(self) -> int:
        number = self._last
        while True:
            number = number % 0xFFFF_FFFF + 1
            if number not in self._exchanges:
                self._last = number
                return number

    def send(self, packet: bytes) -> None:
        """Send whole frames, now or as soon as the guest reads."""
        if self._lost is not None:
            return
        if self._held:
            packet, self._held = self._held + packet, b""
        if not self._unsent:
            try:
                sent = self._sock.send(packet)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self.fail(f"cannot write to the guest: {error}")
                return
            if sent == len(packet):
                return
            packet = packet[sent:]
            assert self._loop is not None
            callbacks.add_writer(self._loop, self._fd, self._writable)
        self._unsent.append(packet)
        self._unsent_size += len(packet)

    async def drain(self) -> None:
        """Wait while more than a little is unsent."""
        while self._unsent_size > frames.INITIAL_CREDIT and self._lost is None:
            self.attach()
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def fail(self, cause: str) -> None:
        """Close it because of `cause`; every exchange fails with what the sandbox died of."""
        if self._lost is None:
            self.close(self._on_lost(cause))

    def close(self, died: SandboxDied) -> None:
        """Close it; every exchange fails with `died`."""
        if self._lost is not None:
            return
        self._lost = died
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            if self._unsent:
                self._loop.remove_writer(self._fd)
        self._sock.close()
        self._unsent.clear()
        self._unsent_size = 0
        self._held = b""
        self._wake_drain()
        exchanges = list(self._exchanges.values())
        self._exchanges.clear()
        for exchange in exchanges:
            exchange.fail(died)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError, ConnectionResetError):
            # A reset is reported once, and before what the guest had still written: read on.
            return
        except OSError as error:
            self.fail(f"cannot read from the guest: {error}")
            return
        if not data:
            self._end()
            return
        try:
            for number, kind, payload in self._decoder.feed(self._unwrap(data)):
                self._dispatch(number, kind, payload)
        except frames.FrameError as error:
            self.fail(f"the guest broke the protocol: {error}")

    def _end(self) -> None:
        if self._on_end is None:
            self.fail("the guest ended")
            return
        assert self._loop is not None
        self._loop.remove_reader(self._fd)
        self._on_end()

    def _dispatch(self, number: int, kind: int, payload: bytes) -> None:
        exchange = self._exchanges.get(number)
        if exchange is None:
            if number > self._last:
                raise frames.FrameError("a frame for a request that was never made")
            return
        exchange.deliver(kind, payload)
        if exchange.is_over:
            self._exchanges.pop(number, None)

    def _writable(self) -> None:
        while self._unsent:
            packet = self._unsent[0]
            try:
                sent = self._sock.send(packet)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.fail(f"cannot write to the guest: {error}")
                return
            self._unsent_size -= sent
            if sent < len(packet):
                self._unsent[0] = packet[sent:]
                return
            self._unsent.popleft()
        assert self._loop is not None
        self._loop.remove_writer(self._fd)
        self._wake_drain()

    def _wake_drain(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None


def _discard(kind: int, payload: bytes) -> None:
    """Take frames that nobody wants any more."""


def _to_exception(value: dict[str, Any]) -> SandpoolError:
    code, message = value.get("code"), value.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise frames.FrameError("an ERROR without code and message")
    message = message[:4096]
    if code == "file_failed":
        number, path = value.get("errno"), value.get("path", "")
        if not isinstance(number, int) or not isinstance(path, str):
            raise frames.FrameError("a file_failed ERROR without errno and path")
        return file_error(number, message, path)
    kind = _CODES.get(code)
    return kind(message) if kind is not None else GuestError(f"{code}: {message}")
