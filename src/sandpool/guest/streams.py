"""The standard streams of a run, open on descriptors 0, 1 and 2 as a starting interpreter has them.

A run finds them made.  What they are depends only on the encoding and on what the descriptors are,
and those of every run are pipes: so they are made once, before the first fork, on pipes that are
gone again when a run's own take their numbers.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .interpreter import Interpreter

_FIRST_FREE_FD = 3


def open_all(interpreter: Interpreter, *, unbuffered: bool) -> None:
    """Open all three on what the descriptors are now; `unbuffered` as PYTHONUNBUFFERED means it."""
    encoding, errors = interpreter.encoding, interpreter.errors
    sys.stdin = sys.__stdin__ = _open(0, "<stdin>", "rb", encoding, errors, False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _open(1, "<stdout>", "wb", encoding, errors, unbuffered)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open(  # type: ignore[misc]
        2, "<stderr>", "wb", encoding, "backslashreplace", unbuffered
    )


def open_on_pipes(interpreter: Interpreter) -> None:
    """Open all three as they are on pipes, whatever the descriptors are now."""
    held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in range(3)]
    ends = os.pipe()
    try:
        for fd, end in enumerate((ends[0], ends[1], ends[1])):
            os.dup2(end, fd)
        open_all(interpreter, unbuffered=False)
    finally:
        for fd, end in enumerate(held):
            os.dup2(end, fd)
        for end in (*held, *ends):
            os.close(end)


def _open(
    fd: int, name: str, mode: str, encoding: str, errors: str, unbuffered: bool
) -> io.TextIOWrapper:
    buffer: Any = open(fd, mode, 0 if unbuffered else -1, closefd=False)  # noqa: SIM115 (it stays)
    raw = buffer if unbuffered else buffer.raw
    raw.name = name
    lines = not unbuffered and (fd == 2 or raw.isatty())
    stream = io.TextIOWrapper(
        buffer, encoding, errors, newline="\n", line_buffering=lines, write_through=unbuffered
    )
    stream.mode = mode[0]  # type: ignore[misc]
    return stream
