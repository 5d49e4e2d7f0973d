"""A transport that sends together what is written together.

An answer is written in two pieces, its head and its body, and a socket without Nagle's algorithm
sends each at once: that wakes the client twice, the first time for nothing it can use.  Here the
pieces wait for `flush`, or for the event loop to come round.
"""

from __future__ import annotations

import asyncio
from typing import Any

_ENOUGH = 64 * 1024
"""Bytes that wait for nothing more: joining them would cost more than it saves."""


class Gathering:
    """Passes everything on to a transport, and writes with it in fewer pieces.

    The bytes that it holds back are not in the transport's buffer, so writing is paused by at most
    one turn of the loop, or `_ENOUGH` bytes, later than without it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`, whose loop is `loop`."""
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_due = False
        """Whether the loop will call `_flush_due`."""

    def __getattr__(self, name: str) -> Any:
        """Return whatever else a transport has."""
        return getattr(self._transport, name)

    # Asked several times for each request; `__getattr__` takes longer.

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._transport.is_closing()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whom it tells of what comes."""
        return self._transport.get_protocol()

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _ENOUGH:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush_due)

    def flush(self) -> None:
        """Write what has been held back."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._size = 0
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        """Close once everything is written."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Say that nothing more will be written."""
        self.flush()
        self._transport.write_eof()

    def _flush_due(self) -> None:
        self._is_due = False
        self.flush()
