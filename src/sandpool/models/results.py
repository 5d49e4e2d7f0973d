"""What runs and directories are told as."""

from __future__ import annotations

from typing import Literal

from sandpool.models.value import Value

Stream = Literal["stdout", "stderr"]
DEFAULT_MAX_OUTPUT = 1_048_576
"""Bytes of stdout and of stderr that a collected run keeps."""


class ExecResult(Value):
    """What one run did.  A non-zero exit is a result, not an error."""

    exit_code: int
    """The program's own; 128 + n if signal n ended it, as a shell says it."""
    stdout: str = ""
    stderr: str = ""
    duration: float = 0.0
    """Seconds from the start of the program to its end."""
    timed_out: bool = False
    oom_killed: bool = False
    truncated: bool = False
    """Output went past its limit, and the rest was thrown away."""
    signal: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out and not self.oom_killed


class CellError(Value):
    """The exception that ended a cell."""

    name: str
    value: str
    traceback: str


class ContextResult(Value):
    """What one cell of a stateful interpreter did."""

    status: Literal["ok", "error", "timeout", "died"]
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    """`repr` of the last expression, as a notebook shows it."""
    displays: tuple[dict[str, str], ...] = ()
    """MIME bundles in order, the result's included: text as it is, binary types in base64."""
    error: CellError | None = None
    count: int = 0
    duration: float = 0.0
    truncated: bool = False


class DirEntry(Value):
    """One path inside a sandbox."""

    name: str
    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    """Bytes."""
    mode: int
    """Permission bits, such as 0o644."""
    mtime: float
    """Seconds since the epoch."""
    target: str | None = None
    """Where a symbolic link points."""
