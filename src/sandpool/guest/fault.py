"""What is told of the exception that ended a cell: its name, its text and its traceback."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from .display import shorten

if TYPE_CHECKING:
    from types import TracebackType

NAME = "<cell %d>"
"""The name of a cell's code, by its number; tracebacks show it."""

_PREFIX = NAME.partition("%")[0]
_NAME_ROOM = 1024
_VALUE_ROOM = 32 * 1024
_TRACEBACK_ROOM = 128 * 1024


def describe(failure: BaseException) -> dict[str, str]:
    """Return `name`, `value` and `traceback`, as the interpreter would print it.

    What the exception's own methods raise gets out, if the standard library lets it.
    """
    kind = type(failure)
    trace = _from_the_cell(failure.__traceback__)
    return {
        "name": shorten(kind.__name__, _NAME_ROOM),
        "value": shorten(_text(failure), _VALUE_ROOM),
        "traceback": shorten(
            "".join(traceback.format_exception(kind, failure, trace)), _TRACEBACK_ROOM
        ),
    }


def name_only(failure: BaseException) -> dict[str, str]:
    """Return the same for an exception that cannot even be printed."""
    name = shorten(type(failure).__name__, _NAME_ROOM)
    return {"name": name, "value": "", "traceback": name + "\n"}


def _text(failure: BaseException) -> str:
    try:
        return str(failure)
    except Exception:  # noqa: BLE001 (a tenant's `__str__`)
        return "<exception str() failed>"


def _from_the_cell(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our own frames, and without those of the event loop on top.

    It begins at the first frame of a cell, if there is one: an interrupt may find nothing but the
    event loop.
    """
    kept: list[TracebackType] = []
    while trace is not None:
        if trace.tb_frame.f_globals.get("__package__") != __package__:
            kept.append(trace)
        trace = trace.tb_next
    for index, entry in enumerate(kept):
        if entry.tb_frame.f_code.co_filename.startswith(_PREFIX):
            del kept[:index]
            break
    below = None
    for entry in reversed(kept):
        entry.tb_next = below
        below = entry
    return below
