"""The bodies of the calls about a sandbox's stateful interpreters, and what a cell shows.

A cell that is followed is answered with the events of `sandpool.wire.events`, and before its result
with one more kind:

    display          one MIME bundle, in the order of showing; the result leaves them out
"""

from __future__ import annotations

from pydantic import Field, TypeAdapter

from sandpool.models import ContextResult, Value
from sandpool.wire import events

DISPLAY = "display"
"""The name of the event of one thing shown."""

BUNDLE: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
"""One thing shown, in each form that it has: text as it is, binary types in base64."""


class NewContext(Value):
    """An interpreter to be started."""

    env: dict[str, str | None] = Field(default_factory=dict, repr=False)
    """Changes to the sandbox's environment; None takes a variable away."""
    cwd: str | None = None


class ContextState(Value):
    """An interpreter that lives."""

    id: str


class Cell(Value):
    """Code to be run in an interpreter."""

    code: str = Field(repr=False)
    timeout: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds after which the cell is interrupted; None: never."""


def write_result(result: ContextResult) -> bytes:
    """Return the events that end a cell: what it showed, and the rest of its result."""
    shown = [events.write(DISPLAY, bundle) for bundle in result.displays]
    rest = result.model_copy(update={"displays": ()})
    return b"".join([*shown, events.write("result", rest.model_dump(mode="json"))])
