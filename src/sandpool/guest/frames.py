"""The wire format between host and guest: frames, their kinds and an incremental decoder.

This module is pure and is the one file that both ends use.  A frame is

    length  u32   bytes of payload, at most MAX_PAYLOAD
    request u32   the request it belongs to; 0 is never used
    kind    u8    one of the kinds below
    payload       `length` bytes

all big-endian.  Control payloads are JSON objects in UTF-8; STDOUT, STDERR and DATA are raw bytes.

    host -> guest   REQUEST {"op": ..., "epoch": ...} opens a request; DATA and EOF feed it; CONTROL
                    {"signal": n} or {"rows": r, "cols": c} acts on it; CREDIT allows more output;
                    CANCEL ends it and everything that it started.
    guest -> host   STDOUT, STDERR and DATA bytes, EVENT objects; EOF ends a DATA stream;
                    CREDIT allows more input; RESPONSE or ERROR {"code", "message", "errno"?}
                    closes the request and is its last frame.

Flow control.  For each request each side may send at most INITIAL_CREDIT bytes of STDOUT + STDERR +
DATA payload, plus what CREDIT frames (a u32 each) have added.  Control frames are free, but bounded
by MAX_CONTROL.  Sending more than the credit, an unknown kind, an oversized frame, a guest's empty
STDOUT, STDERR or DATA (which no credit would bound), a control payload that is not a JSON object or
a frame that its side may not send is a violation: the receiver closes the connection, which ends
this sandbox and nothing else.  A frame for a request that has just ended is not a violation (the
two ends cross on the wire); it is dropped.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Collection, Dict, List, Tuple, cast

VERSION = 1

HEADER = struct.Struct(">IIB")

MAX_PAYLOAD = 256 * 1024
"""The largest payload of any frame, in bytes."""

MAX_CONTROL = 256 * 1024
"""The largest JSON payload, in bytes.  Larger inputs (code, files) travel as DATA."""

CHUNK = 64 * 1024
"""What each side cuts long DATA into, in bytes."""

LONGEST_HEAD = 32 * 1024
"""Bytes of the answer that `probe` returns.  Each may take six in a control payload."""

INITIAL_CREDIT = 512 * 1024
"""Bytes of DATA, STDOUT and STDERR that a side may send on a new request before any CREDIT."""

REQUEST = 1
DATA = 2
EOF = 3
CREDIT = 4
CANCEL = 5
CONTROL = 6
RESPONSE = 7
ERROR = 8
EVENT = 9
STDOUT = 10
STDERR = 11

FROM_HOST = frozenset((REQUEST, DATA, EOF, CREDIT, CANCEL, CONTROL))
FROM_GUEST = frozenset((DATA, EOF, CREDIT, RESPONSE, ERROR, EVENT, STDOUT, STDERR))
JSON_KINDS = frozenset((REQUEST, CONTROL, RESPONSE, ERROR, EVENT))
STREAM_KINDS = frozenset((DATA, STDOUT, STDERR))

_CREDIT = struct.Struct(">I")


class FrameError(ValueError):
    """The other side broke the wire format; the connection must be closed."""


_as_json = json.JSONEncoder(separators=(",", ":")).encode


def encode(request: int, kind: int, payload: bytes = b"") -> bytes:
    """Return one frame as bytes."""
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"frame of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}")
    return HEADER.pack(len(payload), request, kind) + payload


def encode_json(request: int, kind: int, value: Dict[str, Any]) -> bytes:
    """Return one frame whose payload is the JSON object `value`."""
    return encode(request, kind, as_json(value))


def as_json(value: Dict[str, Any]) -> bytes:
    """Return a control payload."""
    return _as_json(value).encode("utf-8", "surrogatepass")


def encode_credit(request: int, count: int) -> bytes:
    """Return the frame that allows the other side `count` more bytes."""
    return encode(request, CREDIT, _CREDIT.pack(count))


def decode_json(payload: bytes) -> Dict[str, Any]:
    """Return the JSON object in a control payload, or raise FrameError."""
    if len(payload) > MAX_CONTROL:
        raise FrameError("control payload is over the limit")
    try:
        value: Any = json.loads(payload.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise FrameError("control payload is not JSON") from error
    if not isinstance(value, dict):
        raise FrameError("control payload is not a JSON object")
    return cast("Dict[str, Any]", value)


def decode_credit(payload: bytes) -> int:
    """Return the number of bytes that a CREDIT frame allows, or raise FrameError."""
    if len(payload) != _CREDIT.size:
        raise FrameError("credit payload has the wrong size")
    count: int = _CREDIT.unpack(payload)[0]
    return count


class Decoder:
    """Cuts a byte stream into frames, in any chunking, and refuses what the format forbids.

    Never holds more than one frame's bytes beyond what it was last fed.
    """

    __slots__ = ("_allowed", "_buffer")

    def __init__(self, allowed: Collection[int]) -> None:
        """Make a decoder for the kinds in `allowed`: FROM_HOST or FROM_GUEST."""
        self._allowed = allowed
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Tuple[int, int, bytes]]:
        """Return the complete frames [(request, kind, payload)] that `data` brings to an end.

        Raise FrameError at the first violation; the decoder is useless afterwards.
        """
        buffer = self._buffer
        buffer += data
        frames: List[Tuple[int, int, bytes]] = []
        start = 0
        size = HEADER.size
        while len(buffer) - start >= size:
            length, request, kind = HEADER.unpack_from(buffer, start)
            if length > MAX_PAYLOAD:
                raise FrameError(f"frame of {length} bytes is over the limit")
            if kind not in self._allowed:
                raise FrameError(f"frame kind {kind} is not allowed here")
            if request == 0:
                raise FrameError("request id 0 is not allowed")
            end = start + size + length
            if len(buffer) < end:
                break
            frames.append((request, kind, bytes(buffer[start + size : end])))
            start = end
        if start:
            del buffer[:start]
        return frames
