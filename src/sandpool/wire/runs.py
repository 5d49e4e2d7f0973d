"""The bodies of the calls that run something, and what goes over an attached WebSocket.

A process is attached by one WebSocket: the client's first message is an `Attachment`, the server's
first a `Started`.  From then on binary messages are bytes with one byte before them that says which
stream they are of, and text messages are a `Control` from the client, and from the server another
`Started` once it knows the process id, and an `Ended` as the last one.  Closing the WebSocket kills
the process.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from sandpool.models import DEFAULT_MAX_OUTPUT, Base64Data, ExecResult, Stream, Value

STDIN = 0
STDOUT = 1
STDERR = 2
"""The first byte of a binary message."""

STREAMS: dict[int, Stream] = {STDOUT: "stdout", STDERR: "stderr"}
TAGS: dict[Stream, bytes] = {"stdout": bytes([STDOUT]), "stderr": bytes([STDERR])}

LARGEST_PIECE = 65_536
"""Bytes of a stream in one message."""

END_OF_STREAM = "eof"
"""On the WebSocket of a port: the text message that ends one side of the connection."""

_LONGEST = 31_536_000

Command = str | tuple[str, ...]
"""What is executed: a string by a shell, a sequence as it is."""


class _Run(Value):
    env: dict[str, str | None] = Field(default_factory=dict, repr=False)
    """Changes to the sandbox's environment; None takes a variable away."""
    cwd: str | None = None
    stdin: str | Base64Data = Field(default="", repr=False)
    timeout: float | None = Field(default=None, gt=0, le=_LONGEST)
    """Seconds until everything that the run has started is killed."""
    max_output: int | None = Field(default=DEFAULT_MAX_OUTPUT, ge=0)
    """Bytes of stdout and of stderr that are kept; None: as many as the server allows."""

    def stdin_bytes(self) -> bytes:
        """Return what the program reads."""
        return self.stdin.encode() if isinstance(self.stdin, str) else self.stdin.base64


class CodeRun(_Run):
    """Python code to be run to its end."""

    code: str = Field(repr=False)
    argv: tuple[str, ...] = ()
    """`sys.argv[1:]`."""


class CommandRun(_Run):
    """A command to be run to its end."""

    command: Command


class Size(Value):
    """A terminal's size, in characters."""

    rows: int = Field(default=24, ge=1, le=10_000)
    cols: int = Field(default=80, ge=1, le=10_000)


class Attachment(Value):
    """A process to be started, and attached to."""

    command: Command = ("/bin/sh",)
    env: dict[str, str | None] = Field(default_factory=dict, repr=False)
    cwd: str | None = None
    timeout: float | None = Field(default=None, gt=0, le=_LONGEST)
    pty: Size | None = None
    """Give it a terminal of this size; all output is stdout then."""


class Started(Value):
    """The server's first message: the process runs; sent again when its id is known."""

    kind: Literal["started"] = "started"
    pid: int | None
    """Its id inside the sandbox; None: not known yet."""


class Control(Value):
    """Something that a process is told, besides its input."""

    signal: int | None = Field(default=None, ge=1, le=64)
    resize: Size | None = None
    eof: bool = False
    """Close standard input."""


class Ended(Value):
    """The server's last message: one of the two."""

    kind: Literal["ended"] = "ended"
    result: ExecResult | None = None
    """What the process did, without the output that went before."""
    error: dict[str, Any] | None = None
    """A problem: why there is no result."""


REPORT: TypeAdapter[Started | Ended] = TypeAdapter(
    Annotated[Started | Ended, Field(discriminator="kind")]
)
"""A text message of the server's."""
