"""The stock of network namespaces, each with a loopback interface and nothing else.

Making one costs half a millisecond, and being rid of it costs the kernel as much again.  So they
are made ahead, and one whose sandbox is gone is taken back if it is as new by every figure that the
kernel shows of it: no packet ever went through it, no socket is left in it.

    W1  A namespace in `_stock` has never carried a packet, and no process is in it but us.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from typing import List, Tuple

from . import kernel
from .root import PROC

_AHEAD = 8
"""Made while there is nothing else to do."""
_MOST = 64
"""Kept of what comes back."""

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_OURS = PROC + "/thread-self/ns/net"
_COUNTERS = tuple(PROC + "/thread-self/net/" + name for name in ("dev", "snmp", "snmp6", "netstat"))
_SOCKETS = tuple(PROC + "/thread-self/net/" + name for name in ("sockstat", "sockstat6"))
_TABLES = _COUNTERS + _SOCKETS
_GLOBAL = re.compile(rb" (?:alloc|mem|memory|orphan) [0-9]+")
"""Words and figures in a table of sockets that are the whole machine's."""


class Networks:
    """Namespaces by descriptor: each is in the stock or somebody else's."""

    def __init__(self) -> None:
        """Have none yet."""
        self._stock: List[int] = []  # Invariant W1
        self._new: Tuple[bytes, ...] = ()
        """What the kernel shows of a new one."""

    @property
    def is_short(self) -> bool:
        """Whether one should be made when there is time."""
        return len(self._stock) < _AHEAD

    def make(self) -> None:
        """Make one more."""
        # What has been given back goes first: it was in use a moment ago, and shall not pile up.
        self._stock.insert(0, self._make())

    def take(self) -> int:
        """Return one, open; the caller closes it or gives it back."""
        return self._stock.pop() if self._stock else self._make()

    def give_back(self, fd: int) -> None:
        """Keep one whose processes are all gone, if it is as new; let it go otherwise."""
        if len(self._stock) < _MOST and self._is_new(fd):
            self._stock.append(fd)
        else:
            os.close(fd)

    def _make(self) -> int:
        kernel.unshare(kernel.CLONE_NEWNET)
        _bring_loopback_up()
        if not self._new:
            self._new = tuple(map(_look, _TABLES))
        return os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)

    def _is_new(self, fd: int) -> bool:
        try:
            kernel.setns(fd, kernel.CLONE_NEWNET)
            return all(_look(path) == new for path, new in zip(_TABLES, self._new))
        except OSError:
            return False


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))


def _look(path: str) -> bytes:
    """Return what a table shows of the namespace that we are in; nothing if there is no such table.

    It is one read: the kernel gives the whole of a table that is as short as a new one's, and of a
    longer one more than that.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        found = os.read(fd, 16384)
    finally:
        os.close(fd)
    return _GLOBAL.sub(b"", found) if path in _SOCKETS else found
