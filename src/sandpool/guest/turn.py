"""One cell in a context: from its place in the queue to the answer of its request.

The context does one at a time.

    WAITING ─► RUNNING ─► ENDED ─► DRAINED ─► answered
    RUNNING ─► INTERRUPTED (timeout, CANCEL) ─► ENDED, or past `GRACE` the context is killed

    T1  The answer is sent after the last byte of output that the cell has written.
    T2  What a cell shows is bounded, in bundles and in bytes; what is over is left out, and said
        to be `truncated`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, cast

from . import frames
from .loop import monotonic
from .request import Activity

if TYPE_CHECKING:
    from .context import Context
    from .loop import Timer
    from .refusal import Refusal
    from .request import Request
    from .source import Source

GRACE = 2.0
"""Seconds that an interrupted cell has to come to its end, before the context is killed."""

_MAX_BUNDLES = 1000
_MAX_SHOWN = 16 * 1024 * 1024
_LONGEST_TYPE = 200
_ROOM = frames.MAX_CONTROL - 1024
_INTERRUPT = 2
_FAULT = frozenset(("name", "value", "traceback"))


class Turn(Activity):
    """A cell, its limits and its request."""

    def __init__(
        self,
        context: Context,
        request: Request,
        source: Source,
        timeout: float | None,
        max_output: int | None,
    ) -> None:
        """Describe it; `Context.enter` puts it in the queue."""
        self._context = context
        self.request = request
        self.source = source
        self.max_output = max_output
        self._timeout = timeout
        self._number = 0
        self._started = 0.0
        self._duration = 0.0
        self._has_begun = False
        self._is_interrupted = False
        self._is_signal_due = False
        self._has_timed_out = False
        self._is_truncated = False
        self._bundles = 0
        self._shown = 0
        self._undrained = 0
        self._answer: dict[str, Any] | None = None
        self._timer: Timer | None = None
        self._grace: Timer | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the cell is over, though its output may still be on its way."""
        return self._answer is not None

    def begin(self, number: int) -> None:
        """Become the context's current cell."""
        self._number = number
        self._started = monotonic()
        if self._timeout is not None:
            self._timer = self._context.guest.loop.after(self._timeout, self._time_out)

    def begun(self) -> None:
        """Learn that the process listens to SIGINT; one sent before would have killed it."""
        self._has_begun = True
        if self._is_signal_due:
            self._is_signal_due = False
            self._context.interrupt()

    def show(self, value: dict[str, Any]) -> None:
        """Pass a bundle on.  Raises FrameError if it is not one."""
        given = value.get("display")
        if not isinstance(given, dict):
            raise frames.FrameError("a display is not a bundle of texts")
        bundle = cast("Dict[Any, Any]", given)
        if not all(map(_is_part, bundle.items())):
            raise frames.FrameError("a display is not a bundle of texts")
        event: Dict[str, Any] = {
            "display": {kind: _sound(text) for kind, text in bundle.items()},
            "result": value.get("result") is True,
        }
        size = len(json.dumps(event))
        if size > _ROOM:
            raise frames.FrameError("a display is over the limit")
        self._bundles += 1
        self._shown += size
        if self._bundles > _MAX_BUNDLES or self._shown > _MAX_SHOWN:
            self._is_truncated = True  # Invariant T2
        else:
            self.request.event(event)

    def finish(self, report: dict[str, Any]) -> None:
        """Learn how the cell ended.  Raises FrameError."""
        status, given = report.get("status"), report.get("error")
        fault = cast("Dict[Any, Any]", given) if isinstance(given, dict) else {}
        answer: Dict[str, Any] = {"status": status}
        if status == "error" and fault.keys() == _FAULT:
            if not all(isinstance(text, str) for text in fault.values()):
                raise frames.FrameError("an error is not made of texts")
            answer["error"] = {name: _sound(text) for name, text in fault.items()}
            if len(json.dumps(answer)) > _ROOM:
                raise frames.FrameError("an error is over the limit")
        elif status != "ok":
            raise frames.FrameError("a cell ended neither well nor badly")
        self._end(answer)

    def abandon(self, why: str) -> None:
        """Learn that the context has been killed, and with it the cell if it was not over."""
        if self._answer is None:
            error = {"name": "ContextDied", "value": why, "traceback": ""}
            self._end({"status": "died", "error": error})

    def refuse(self, refusal: Refusal) -> None:
        """Answer a cell that will never begin."""
        self.source.discard()
        self.request.refuse(refusal)

    def control(self, request: Request, value: dict[str, Any]) -> None:
        """Interrupt the cell, if that is what the host asks; other signals are not for cells."""
        if value.get("signal") == _INTERRUPT and self._is_running:
            self._signal()

    def resume(self, request: Request) -> None:
        """Go on reading output."""
        if self._number:
            for outlet in self._context.outlets:
                outlet.resume()

    def cancel(self, request: Request) -> None:
        """Interrupt the cell; the context and its state stay if it heeds that."""
        if not self._number:
            self._context.withdraw(self)
            self.source.discard()
            super().cancel(request)
        elif self._answer is None:
            self._interrupt()
        else:
            self._drain()

    @property
    def _is_running(self) -> bool:
        return self._number > 0 and self._answer is None

    def _signal(self) -> None:
        if self._has_begun:
            self._context.interrupt()
        else:
            self._is_signal_due = True

    def _time_out(self) -> None:
        self._has_timed_out = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self._is_interrupted:
            return
        self._is_interrupted = True
        self._grace = self._context.guest.loop.after(GRACE, self._lose_patience)
        # From here on output that the host does not take is dropped: a cell that is stuck in
        # writing could not end.
        for outlet in self._context.outlets:
            outlet.drain(_do_nothing, is_final=True)
        self._signal()

    def _lose_patience(self) -> None:
        self._context.end(f"the cell did not end within {GRACE:g} s of being interrupted")

    def _end(self, answer: dict[str, Any]) -> None:
        self._answer = answer
        self._duration = monotonic() - self._started
        for timer in (self._timer, self._grace):
            if timer is not None:
                timer.cancel()
        self.source.discard()
        self._drain()

    def _drain(self) -> None:
        # Anew, if a CANCEL finds us draining already: each outlet keeps only the last callback.
        outlets = self._context.outlets
        self._undrained = len(outlets)
        for outlet in outlets:
            outlet.drain(self._drained, is_final=self._is_interrupted or self.request.is_cancelled)

    def _drained(self) -> None:
        self._undrained -= 1
        if self._undrained == 0:
            self._respond()  # Invariant T1

    def _respond(self) -> None:
        answer, request = self._answer, self.request
        assert answer is not None
        if request.is_cancelled:
            request.fail("cancelled", "the cell was interrupted")
        else:
            if self._has_timed_out:
                answer["status"] = "timeout"
            answer["count"] = self._number
            answer["duration"] = self._duration
            answer["truncated"] = self._is_truncated or any(
                outlet.is_truncated for outlet in self._context.outlets
            )
            request.respond(answer)
        self._context.leave(self)


def _is_part(item: tuple[str, object]) -> bool:
    return len(item[0]) <= _LONGEST_TYPE and isinstance(item[1], str)


def _sound(text: str) -> str:
    """Return `text` without lone surrogates, which have no form in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _do_nothing() -> None:
    """Be called when an outlet has been emptied."""
