"""What a process has written, as lines: the wire knows nothing smaller."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from sandpool.models import Stream

_LONGEST = 65_536
"""Bytes of a line; a longer one is told in pieces, so that following it shows something."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end."""

    stream: Stream
    text: str
    at: int
    """Milliseconds since the epoch."""


class Output:
    """The lines of one process, kept for whoever comes later.

    They are bounded by what a sandbox lets a process write in all.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.lines: list[Line] = []
        self.size = 0
        """Bytes that are kept, about."""
        self.is_over = False
        """Whether no more will come."""
        self._rest: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._changed = anyio.Event()

    def add(self, stream: Stream, data: bytes, at: int) -> None:
        """Take what was written; lines that are whole by now are told."""
        rest = self._rest[stream]
        rest += data
        self.size += len(data)
        whole = rest.rfind(b"\n") + 1
        if not whole and len(rest) >= _LONGEST:
            whole = len(rest)
        if whole:
            self._tell(stream, bytes(rest[:whole]), at)
            del rest[:whole]

    def end(self, at: int) -> None:
        """Tell what is left; nothing more will come."""
        for stream, rest in self._rest.items():
            if rest:
                self._tell(stream, bytes(rest), at)
                rest.clear()
        self.is_over = True
        self._wake()

    def texts(self, stream: Stream | None) -> list[str]:
        """Return the lines of one stream, or of both in the order in which they came."""
        return [line.text for line in self.lines if stream in (None, line.stream)]

    async def after(self, place: int) -> list[Line]:
        """Return the lines from `place` on, waiting for one; none: there will be no more."""
        while len(self.lines) <= place and not self.is_over:
            await self._changed.wait()
        return self.lines[place:]

    def _tell(self, stream: Stream, data: bytes, at: int) -> None:
        texts = data.removesuffix(b"\n").decode("utf-8", "replace").split("\n")
        self.lines += [Line(stream, text, at) for text in texts]
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
