"""Runs and relays in progress: an exchange with the guest, as callers see it.

What the guest reports is validated here; a report that is not what the protocol says costs the
sandbox its life.
"""

from __future__ import annotations

import signal as signals
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandpool.backends.connection import Exchange, GuestConnection
from sandpool.errors import SandboxDied, Unsupported
from sandpool.guest import frames
from sandpool.models import ExecResult, Stream

CANCEL_GRACE = 5.0
"""Seconds that a guest has to confirm that a cancelled request is over."""

_NAMES: dict[int, Stream] = {
    frames.STDOUT: "stdout",
    frames.STDERR: "stderr",
    frames.DATA: "stdout",
}


class ExitReport(BaseModel):
    """The guest's RESPONSE at the end of a run."""

    model_config = ConfigDict(extra="ignore", strict=True)

    exit_code: int = Field(ge=0, le=255)
    signal: int | None = Field(default=None, ge=1, le=64)
    timed_out: bool = False
    truncated: bool = False
    duration: float = Field(ge=0)


_Report = TypeVar("_Report", bound=BaseModel)


def parse(connection: GuestConnection, kind: type[_Report], value: dict[str, Any]) -> _Report:
    """Return a validated report, or end the sandbox and raise what it died of."""
    try:
        return kind.model_validate(value)
    except ValidationError:
        connection.fail("the guest broke the protocol: a malformed report")
        assert connection.lost is not None
        raise connection.lost from None


class Bound:
    """Holds each stream of a run to its limit.

    The guest keeps to the same limit, but a guest that its tenant has taken over may not.
    """

    def __init__(self, max_output: int | None) -> None:
        """Let `max_output` bytes of each stream pass; None: all."""
        self._left = None if max_output is None else {"stdout": max_output, "stderr": max_output}
        self.is_passed = False
        """Whether something was cut off."""

    def cut(self, stream: Stream, payload: bytes) -> bytes:
        """Return what of `payload` may still pass."""
        if self._left is None:
            return payload
        if len(payload) > self._left[stream]:
            self.is_passed = True
            payload = payload[: self._left[stream]]
        self._left[stream] -= len(payload)
        return payload


class Output:
    """Collects a run's two streams."""

    def __init__(self, bound: Bound) -> None:
        """Start empty; never hold more than `bound` lets pass."""
        self._bound = bound
        self._pieces: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}

    def add(self, kind: int, payload: bytes) -> None:
        """Take one frame; an exchange's sink."""
        stream = _NAMES.get(kind)
        if stream is not None and (payload := self._bound.cut(stream, payload)):
            self._pieces[stream].append(payload)

    def text(self, stream: Stream) -> str:
        """Return one stream as text; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self._pieces[stream]).decode("utf-8", "replace")

    def result(self, report: ExitReport, *, oom_killed: bool) -> ExecResult:
        """Return the run's result."""
        return ExecResult(
            exit_code=report.exit_code,
            stdout=self.text("stdout"),
            stderr=self.text("stderr"),
            duration=report.duration,
            timed_out=report.timed_out,
            oom_killed=oom_killed,
            truncated=report.truncated or self._bound.is_passed,
            signal=report.signal,
        )


class Run:
    """A program in progress; implements `service.Process`."""

    def __init__(
        self,
        connection: GuestConnection,
        exchange: Exchange,
        *,
        max_output: int | None,
        is_terminal: bool,
        was_oom_killed: Callable[[], bool],
    ) -> None:
        """Make it; `GuestBox` does."""
        self.pid: int | None = None
        self._connection = connection
        self._exchange = exchange
        self._is_terminal = is_terminal
        self._was_oom_killed = was_oom_killed
        self._bound = Bound(max_output)
        self._rest = Output(self._bound)

    async def __aenter__(self) -> Run:
        """Return itself."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Cancel the run if it has not ended."""
        await self._exchange.cancel(CANCEL_GRACE)

    def __aiter__(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Iterate over the output as it comes."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (frame := await self._exchange.receive()) is not None:
            kind, payload = frame
            if kind in _NAMES:
                stream = _NAMES[kind]
                if payload := self._bound.cut(stream, payload):
                    yield stream, payload
            else:
                self._note(kind, payload)

    def _note(self, kind: int, payload: bytes) -> None:
        if kind == frames.EVENT:
            pid = frames.decode_json(payload).get("pid")
            if isinstance(pid, int):
                self.pid = pid

    async def send(self, data: bytes) -> None:
        """Write to standard input."""
        await self._exchange.send(data)

    async def send_eof(self) -> None:
        """Close standard input."""
        self._exchange.send_eof()

    async def signal(self, number: int) -> None:
        """Send a signal to the run's process group."""
        self._exchange.control(signal=int(signals.Signals(number)))

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its size."""
        if not self._is_terminal:
            raise Unsupported("only a terminal has a size; start the program with open_pty")
        self._exchange.control(rows=rows, cols=cols)

    async def wait(self) -> ExecResult:
        """Return the result, with what was not iterated over."""
        try:
            while (frame := await self._exchange.receive()) is not None:
                self._rest.add(*frame)
                self._note(*frame)
        except anyio.get_cancelled_exc_class():
            await self._exchange.cancel(CANCEL_GRACE)
            raise
        report = parse(self._connection, ExitReport, await self._exchange.result())
        killed = report.signal == signals.SIGKILL and not report.timed_out
        return self._rest.result(report, oom_killed=killed and self._was_oom_killed())


class Relay:
    """A connection to a port inside; implements `service.ByteStream`."""

    def __init__(self, exchange: Exchange) -> None:
        """Make it; `GuestBox` does, once the guest is connected."""
        self._exchange = exchange
        self._has_ended = False

    async def receive(self) -> bytes:
        """Return the next bytes; `b""` when the other side has ended."""
        while not self._has_ended:
            try:
                frame = await self._exchange.receive()
            except SandboxDied:
                self._has_ended = True
                raise
            if frame is None or frame[0] == frames.EOF:
                self._has_ended = True
            elif frame[0] == frames.DATA:
                return frame[1]
        return b""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if self._exchange.is_over:
            raise BrokenPipeError("the connection into the sandbox is closed")
        await self._exchange.send(data)

    async def send_eof(self) -> None:
        """End our side."""
        self._exchange.send_eof()

    async def aclose(self) -> None:
        """Close both sides; like the end of any connection, the other one hears of it later."""
        self._exchange.abandon(CANCEL_GRACE)
