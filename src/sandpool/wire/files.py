"""The bodies of the calls about a sandbox's files."""

from __future__ import annotations

from pydantic import Field, TypeAdapter

from sandpool.models import DirEntry, Value

LONGEST_PATH = 4096
"""Characters of a path inside a sandbox."""

MODE_PATTERN = r"^[0-7]{1,4}$"
"""Permission bits as they stand in a query: octal, as `chmod` takes them."""

ENTRIES: TypeAdapter[list[DirEntry]] = TypeAdapter(list[DirEntry])
"""A directory's listing."""


class Written(Value):
    """What came of writing or appending."""

    size: int = Field(ge=0)
    """Bytes that the call wrote."""


class NewDirectory(Value):
    """A directory to be made, its parents too."""

    path: str = Field(min_length=1, max_length=LONGEST_PATH)


class Move(Value):
    """A path to be renamed; a file at the target is replaced."""

    source: str = Field(min_length=1, max_length=LONGEST_PATH)
    target: str = Field(min_length=1, max_length=LONGEST_PATH)


def format_mode(mode: int | None) -> str | None:
    """Return permission bits as they stand in a query."""
    return None if mode is None else f"{mode:o}"


def parse_mode(text: str | None) -> int | None:
    """Return the permission bits of a query, which matches `MODE_PATTERN`."""
    return None if text is None else int(text, 8)
