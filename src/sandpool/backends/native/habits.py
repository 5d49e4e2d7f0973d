"""What the sandboxes of a template are used for, as far as the next ones are to be ready for it.

A sandbox is served by a few pages of compiled code for as long as it is asked for plain things
(`template/plain.c`); a guest in Python takes over with the first request that is not plain, and
that one has to wait for it: 2 or 3 ms.  Where that keeps happening, new sandboxes have their guest
in Python from the start, which costs each as much before anybody waits.

Pure.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping

_REMEMBERED = 8
"""Sandboxes of late; all of them plain is what new ones are taken for."""

_PLAIN: dict[str, frozenset[str]] = {
    "hello": frozenset(("version", "env")),
    "ping": frozenset(),
    "warm": frozenset(),
    "bind": frozenset(("env",)),
    "run_code": frozenset(("code", "env", "timeout", "max_output")),
}


_LONGEST_CODE = 60_000
"""Of code as JSON, in bytes: the rest of its frame has room besides."""
_MOST_OF_A_CHARACTER = 12
"""The bytes of the longest one in JSON."""


def is_plain(op: str, fields: Mapping[str, object]) -> bool:
    """Whether a request is one that `plain.c` serves, by its fields; values may be odd besides."""
    allowed = _PLAIN.get(op)
    if allowed is None or not fields.keys() - {"epoch"} <= allowed:
        return False
    return op != "run_code" or _is_short(fields.get("code"))


def _is_short(code: object) -> bool:
    """Whether code is in the request, and goes into one small frame."""
    if not isinstance(code, str):
        return False  # it follows as a stream
    return (
        len(code) * _MOST_OF_A_CHARACTER <= _LONGEST_CODE or len(json.dumps(code)) <= _LONGEST_CODE
    )


class Habit:
    """What the last sandboxes of a template were used for."""

    def __init__(self) -> None:
        """Know of none."""
        self._were_plain: deque[bool] = deque(maxlen=_REMEMBERED)

    def note(self, was_plain: bool) -> None:
        """Learn that a sandbox has ended, and whether it was asked for plain things only."""
        self._were_plain.append(was_plain)

    @property
    def is_plain(self) -> bool:
        """Whether the next one will, as far as one can know, not be asked for more."""
        return all(self._were_plain)
