"""Takes a container's output streams apart, as the engine sends them on one connection.

A frame is one byte that says which stream, three zeros, a big-endian length, and that many bytes.
"""

from __future__ import annotations

import struct

from sandpool.guest.frames import FrameError

_HEADER = struct.Struct(">B3xI")
_STDOUT, _STDERR = 1, 2
_MAX_FRAME = 16 * 1024 * 1024
_KEPT_ERRORS = 4096


class Demultiplexer:
    """Bytes of frames in, the bytes of standard output out."""

    def __init__(self) -> None:
        """Begin between two frames."""
        self._head = b""
        self._left = 0
        """Bytes of the frame in progress that have not come yet."""
        self._stream = _STDOUT
        self._errors = b""

    @property
    def errors(self) -> str:
        """The end of what came on standard error: why a guest could not begin."""
        return self._errors.decode("utf-8", "replace").strip()

    def feed(self, data: bytes) -> bytes:
        """Return what of `data` is standard output; `FrameError` if it is not from an engine."""
        found: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._left:
                at = self._take_head(data, at)
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._stream == _STDOUT:
                found.append(piece)
            else:
                self._errors = (self._errors + piece)[-_KEPT_ERRORS:]
        return b"".join(found)

    def _take_head(self, data: bytes, at: int) -> int:
        missing = _HEADER.size - len(self._head)
        self._head += data[at : at + missing]
        if len(self._head) == _HEADER.size:
            self._stream, self._left = _HEADER.unpack(self._head)
            if self._stream not in (_STDOUT, _STDERR) or self._left > _MAX_FRAME:
                raise FrameError("the engine's framing of the container's output is broken")
            self._head = b""
        return at + missing
