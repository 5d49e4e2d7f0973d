"""Server-sent events: what a run says while it goes on, as both ends of the wire write and read it.

Each is a line `event:` and a line `data:` of JSON.  A line that begins with a colon is a sign of
life and says nothing.

    stdout, stderr   a piece of output: {"text": …}, or {"base64": …} where it is no whole UTF-8
    result           what the call would have been answered otherwise; the last event
    error            a problem: why there is no result; the last event
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from sandpool.errors import SandpoolError
from sandpool.models import Stream, Value
from sandpool.wire import problems

MEDIA_TYPE = "text/event-stream"
"""What a caller accepts who wants events."""

PING = b": ping\n\n"
"""A sign of life."""

_STREAMS: Mapping[str, Stream] = {"stdout": "stdout", "stderr": "stderr"}
_PROBLEM: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came."""

    name: str
    data: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output."""

    stream: Stream
    data: bytes


class _Piece(Value):
    text: str | None = None
    base64: str | None = None

    def data(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return base64.b64decode(self.base64 or "", validate=True)


def write(name: str, data: object) -> bytes:
    """Return one event as it goes over the wire."""
    # JSON has no line breaks of its own, so the data is always one line.
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def write_output(stream: Stream, data: bytes) -> bytes:
    """Return the event of one piece of output."""
    try:
        return write(stream, {"text": data.decode()})
    except UnicodeDecodeError:
        return write(stream, {"base64": base64.b64encode(data).decode("ascii")})


def write_error(error: SandpoolError) -> bytes:
    """Return the event that ends a run which has no result."""
    return write("error", problems.encode(error))


class Reader:
    """Puts events together from the lines that they come in."""

    def __init__(self) -> None:
        """Begin between two events."""
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; return the event that it ends, if it ends one."""
        if line:
            field, _, value = line.partition(":")
            if field == "event":
                self._name = value.strip()
            elif field == "data":
                self._data.append(value)
            return None
        name, data = self._name, "\n".join(self._data)
        self._name, self._data = "", []
        return Event(name, data) if data else None


def read_output(event: Event) -> Output | None:
    """Return the output that an event brings, if it brings any; `ValueError` if it is malformed."""
    stream = _STREAMS.get(event.name)
    if stream is None:
        return None
    return Output(stream, _Piece.model_validate_json(event.data).data())


def read_error(event: Event) -> SandpoolError:
    """Return what an event of the name `error` stands for; `ValueError` if it is malformed."""
    problem = _PROBLEM.validate_json(event.data)
    status = problem.get("status")
    return problems.decode(status if isinstance(status, int) else 500, problem)
