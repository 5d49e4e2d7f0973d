"""What commands print: tables for people, JSON for programs.

Much of it was written by tenants, such as a file's name or a server's last words.  In a table it
cannot move the cursor, and so not show what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: object) -> None:
    """Print a value of plain types as one line of JSON."""
    print(json.dumps(value, separators=(",", ":")), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below their columns' names."""
    print(format_table(columns, rows), flush=True)


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows below their columns' names, as wide as they are and each on one line.

    Numbers stand to the right.  None is a dash.
    """
    lines = [tuple(columns), *([*map(_cell, row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(_place, line, widths)).rstrip() for line in lines)


def printable(text: str) -> str:
    """Return a text with what is no printable character replaced, line breaks too."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def milliseconds(seconds: float | None) -> str | None:
    """Return a span as people read it."""
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case _:
            return printable(str(value))


def _place(text: str, width: int) -> str:
    is_number = text.replace(".", "", 1).isdigit()
    return text.rjust(width) if is_number else text.ljust(width)
