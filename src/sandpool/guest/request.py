"""One open request: its credit in both directions, its answer, and what goes on for it.

Invariants:

    Q1  `credit` is never negative: a sender looks before it sends.
    Q2  `_allowance` is what the host may still send; below zero is a violation.
    Q3  RESPONSE or ERROR is sent exactly once and is the request's last frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import frames

if TYPE_CHECKING:
    from typing import Callable

    from .connection import Connection
    from .refusal import Refusal

_GRANT_AT = frames.INITIAL_CREDIT // 4
_LONGEST_MESSAGE = 4096


class Activity:
    """What goes on for an open request.  `Request` calls these; each returns at once."""

    __slots__ = ()

    def data(self, request: Request, payload: bytes) -> None:
        """Take bytes from the host; here: drop them."""
        request.consumed(len(payload))

    def eof(self, request: Request) -> None:
        """Learn that the host's stream has ended."""

    def control(self, request: Request, value: dict[str, Any]) -> None:
        """Do what a CONTROL frame asks; what makes no sense here is ignored."""

    def resume(self, request: Request) -> None:
        """Learn that there is credit again."""

    def cancel(self, request: Request) -> None:
        """End it, leave nothing behind, then close the request with ERROR `cancelled`."""
        request.fail("cancelled", "the request was cancelled")


class Request:
    """A request between its REQUEST frame and its RESPONSE or ERROR."""

    __slots__ = (
        "_allowance",
        "_connection",
        "_forget",
        "_owed",
        "activity",
        "credit",
        "is_cancelled",
        "is_open",
        "number",
    )

    def __init__(self, number: int, connection: Connection, forget: Callable[[int], None]) -> None:
        """Open it; `forget` is told when it closes."""
        self.number = number
        self._connection = connection
        self._forget = forget
        self.activity: Activity | None = None
        self.is_open = True
        self.is_cancelled = False
        self.credit = frames.INITIAL_CREDIT
        """Stream bytes that we may still send.  Invariant Q1."""
        self._allowance = frames.INITIAL_CREDIT  # Invariant Q2
        self._owed = 0
        """Bytes consumed since the last CREDIT that we sent."""

    def receive(self, kind: int, payload: bytes) -> None:
        """Take one frame from the host.  Raises FrameError."""
        activity = self.activity
        if kind == frames.DATA:
            self._allowance -= len(payload)
            if self._allowance < 0:
                raise frames.FrameError("the host sent more than its credit")
            if activity is not None:
                activity.data(self, payload)
        elif kind == frames.CREDIT:
            self.credit += frames.decode_credit(payload)
            if activity is not None:
                activity.resume(self)
        elif kind == frames.CONTROL:
            value = frames.decode_json(payload)
            if activity is not None:
                activity.control(self, value)
        elif activity is not None:
            self._end(activity, kind)

    def _end(self, activity: Activity, kind: int) -> None:
        if kind == frames.EOF:
            activity.eof(self)
        elif not self.is_cancelled:
            self.is_cancelled = True
            activity.cancel(self)

    def consumed(self, count: int) -> None:
        """Let the host send `count` bytes more; told in few, large grants."""
        self._owed += count
        if self._owed >= _GRANT_AT and self.is_open:
            self._allowance += self._owed
            self._connection.write(frames.encode_credit(self.number, self._owed))
            self._owed = 0

    def stream(self, kind: int, data: bytes) -> None:
        """Send at most a chunk of STDOUT, STDERR or DATA, for which there is credit."""
        self.credit -= len(data)
        assert self.credit >= 0  # Invariant Q1
        self._connection.send(self.number, kind, data)

    def end_stream(self) -> None:
        """Tell the host that no DATA follows."""
        self._connection.send(self.number, frames.EOF)

    def event(self, value: dict[str, Any]) -> None:
        """Send an EVENT."""
        self._connection.send(self.number, frames.EVENT, frames.as_json(value))

    def event_soon(self, value: dict[str, Any]) -> None:
        """Send an EVENT that nobody waits for, along with what comes next."""
        self._connection.send_soon(self.number, frames.EVENT, frames.as_json(value))

    def respond(self, value: dict[str, Any]) -> None:
        """Close the request with its RESPONSE."""
        self._close(frames.RESPONSE, value)

    def respond_soon(self, value: dict[str, Any]) -> None:
        """Close the request with its RESPONSE, which nobody waits for."""
        self._close(frames.RESPONSE, value, self._connection.send_soon)

    def refuse(self, refusal: Refusal) -> None:
        """Close the request with the ERROR that `refusal` stands for."""
        self.fail(refusal.code, refusal.message, **refusal.details)

    def fail(self, code: str, message: str, **details: object) -> None:
        """Close the request with an ERROR."""
        self._close(frames.ERROR, {"code": code, "message": message[:_LONGEST_MESSAGE], **details})

    def _close(
        self,
        kind: int,
        value: dict[str, Any],
        send: Callable[[int, int, bytes], None] | None = None,
    ) -> None:
        assert self.is_open  # Invariant Q3
        payload = frames.as_json(value)
        if len(payload) > frames.MAX_CONTROL:
            kind = frames.ERROR
            payload = frames.as_json({"code": "internal", "message": "the answer is too large"})
        self.is_open = False
        self.activity = None
        self._forget(self.number)
        (send or self._connection.send)(self.number, kind, payload)
