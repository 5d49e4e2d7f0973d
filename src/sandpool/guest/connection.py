"""The guest's end of the byte stream: frames in, frames out, both bounded.

What cannot be written yet is kept; `is_congested` tells producers to stop until it has gone.  The
host's own requests are read on until what we owe it is several times that much, because answers
must never wait for output.

    W1  `_unsent_size` is the sum of the lengths in `_unsent`.
    W2  Whoever calls `when_clear`, however often, is called back exactly once.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from . import frames
from .loop import READ, WRITE

if TYPE_CHECKING:
    from typing import Callable

    from .loop import Loop, Timer

_READ_SIZE = 128 * 1024
_CONGESTED = 1024 * 1024
_CLEAR = 256 * 1024
_CHOKED = 8 * 1024 * 1024
"""Bytes owed to a host that does not read, past which we stop reading from it too."""

_PATIENCE = 0.002
"""Seconds that a frame which nobody waits for may wait for others."""

_pack = frames.HEADER.pack


class ConnectionOver(Exception):
    """The host has gone, or has broken the protocol: the guest ends, and its sandbox with it."""


class Connection:
    """Frames to and from the host."""

    __slots__ = (
        "_decoder",
        "_due",
        "_is_reading",
        "_is_writing",
        "_loop",
        "_patient",
        "_read_fd",
        "_receive",
        "_unsent",
        "_unsent_size",
        "_waiting",
        "_write_fd",
    )

    def __init__(
        self,
        loop: Loop,
        read_fd: int,
        write_fd: int,
        receive: Callable[[int, int, bytes], None],
    ) -> None:
        """Speak over two descriptors, which may be one; `receive` gets each frame."""
        self._loop = loop
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._receive = receive
        self._decoder = frames.Decoder(frames.FROM_HOST)
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._patient = bytearray()
        """Frames that go with the next ones, or by themselves after a moment."""
        self._due: Timer | None = None
        """When that moment comes; None: there are none."""
        self._is_reading = True
        self._is_writing = False
        self._waiting: dict[Callable[[], None], None] = {}  # in order, each once
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._listen()

    @property
    def is_congested(self) -> bool:
        """Whether producers of output should wait for `when_clear`."""
        return self._unsent_size > _CONGESTED

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the connection is no longer congested."""
        self._waiting[callback] = None

    def send(self, request: int, kind: int, payload: bytes = b"") -> None:
        """Send one frame, now or as soon as the host reads."""
        self.write(_pack(len(payload), request, kind) + payload)

    def send_soon(self, request: int, kind: int, payload: bytes) -> None:
        """Send one frame before the next one, and soon: what nobody waits for wakes no host.

        Waking it costs us the processor, just when a program's first output may be due.
        """
        if self._due is None:
            self._due = self._loop.after(_PATIENCE, self._send_patient)
        self._patient += _pack(len(payload), request, kind) + payload

    def _send_patient(self) -> None:
        self.write(b"")

    def write(self, packet: bytes) -> None:
        """Send whole frames, now or as soon as the host reads."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
            packet = bytes(self._patient) + packet
            self._patient.clear()
        if not self._unsent:
            try:
                sent = os.write(self._write_fd, packet)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ConnectionOver(str(error)) from error
            if sent == len(packet):
                return
            packet = packet[sent:]
        self._unsent.append(packet)
        self._unsent_size += len(packet)
        if not self._is_writing:
            self._is_writing = True
            self._listen()
        if self._is_reading and self._unsent_size > _CHOKED:
            self._is_reading = False
            self._listen()

    def _listen(self) -> None:
        """Tell the loop what we wait for."""
        reading = READ if self._is_reading else 0
        writing = WRITE if self._is_writing else 0
        if self._read_fd == self._write_fd:
            self._watch(self._read_fd, reading | writing)
        else:
            self._watch(self._read_fd, reading)
            self._watch(self._write_fd, writing)

    def _watch(self, fd: int, events: int) -> None:
        if events:
            self._loop.watch(fd, events, self._ready)
        else:
            self._loop.unwatch(fd)

    def _ready(self, events: int) -> None:
        if self._is_writing and events & ~READ:
            self._write()
        if self._is_reading and events & ~WRITE:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._read_fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionOver(str(error)) from error
        if not data:
            raise ConnectionOver("the host closed the connection")
        self.take(data)

    def take(self, data: bytes) -> None:
        """Take what the host has sent.  Raises FrameError."""
        receive = self._receive
        for request, kind, payload in self._decoder.feed(data):
            receive(request, kind, payload)

    def _write(self) -> None:
        while self._unsent:
            packet = self._unsent[0]
            try:
                sent = os.write(self._write_fd, packet)
            except BlockingIOError:
                break
            except OSError as error:
                raise ConnectionOver(str(error)) from error
            self._unsent_size -= sent
            if sent < len(packet):
                self._unsent[0] = packet[sent:]
                break
            self._unsent.popleft()
        if not self._unsent:
            self._is_writing = False
            self._listen()
        if self._unsent_size <= _CLEAR:
            if not self._is_reading:
                self._is_reading = True
                self._listen()
            # Invariant W2: a callback that finds us congested again asks again.
            waiting, self._waiting = self._waiting, {}
            for callback in waiting:
                callback()
