"""The stock of network namespaces, each with a loopback interface and nothing else.

Making one costs half a millisecond, and being rid of it costs the kernel as much again.  So they
are made ahead, and one whose sandbox is gone is taken back if it is as new by every figure that the
kernel shows of it: no packet ever went through it, no socket is left in it.

    W1  A namespace in the stock has never carried a packet, and no process is in it but us.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import List

from . import jail, kernel
from .calls import ERROR, FAILED, Call, Slot
from .forking import Stock
from .layout import Text, lay
from .root import PROC

_AHEAD = 8
"""Made while there is nothing else to do."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SOCKET = Slot(11)
_OURS = PROC + "/thread-self/ns/net"
_COUNTERS = tuple(PROC + "/thread-self/net/" + name for name in ("dev", "snmp", "snmp6", "netstat"))
_SOCKETS = tuple(PROC + "/thread-self/net/" + name for name in ("sockstat", "sockstat6"))
_TABLES = _COUNTERS + _SOCKETS
_PATHS = tuple(map(os.fsencode, _TABLES))
_GLOBAL = re.compile(rb" (?:alloc|mem|memory|orphan) [0-9]+")
"""Words and figures in a table of sockets that are the whole machine's."""


class Networks:
    """Namespaces by descriptor: each is in the stock or somebody else's."""

    def __init__(self, stock: Stock, provisions: jail.Provisions) -> None:
        """Have one; `forking.c` makes, takes and gives back as it is done here.  Raises OSError."""
        self._slots = provisions.slots
        self._program = provisions.program(_calls())
        stock.make = lay(self._program)
        stock.wanted = _AHEAD
        self._stock = stock  # Invariant W1
        first = self._make()
        self._new = tuple(map(_look, _TABLES))
        """What the kernel shows of a new one."""
        shown = zip(_TABLES, _PATHS, self._new)
        for table, (name, path, new) in zip(stock.tables, shown):
            table.path, table.new, table.has_global = path, Text.of(new), name in _SOCKETS
        self.give_back(first)

    @property
    def is_short(self) -> bool:
        """Whether one should be made when there is time."""
        stock = self._stock
        is_short: bool = stock.count < stock.wanted
        return is_short

    def make_ahead(self) -> None:
        """Make one more; where that cannot be done, none is made before it is needed."""
        stock = self._stock
        try:
            made = self._make()
        except OSError:
            stock.wanted = 0  # who takes one is told what is wrong
            return
        # What has been given back goes first: it was in use a moment ago, and shall not pile up.
        stock.networks[: stock.count + 1] = [made, *stock.networks[: stock.count]]
        stock.count += 1

    def take(self) -> int:
        """Return one, open; the caller closes it or gives it back."""
        stock = self._stock
        if stock.count == 0:
            return self._make()
        stock.count -= 1
        fd: int = stock.networks[stock.count]
        return fd

    def give_back(self, fd: int) -> None:
        """Keep one whose processes are all gone, if it is as new; let it go otherwise."""
        stock = self._stock
        if stock.count < len(stock.networks) and self._is_new(fd):
            stock.networks[stock.count] = fd
            stock.count += 1
        else:
            os.close(fd)

    def _make(self) -> int:
        slots = self._slots
        if not self._program.perform(slots):
            failed, number = slots.numbers[FAILED], slots.numbers[ERROR]
            raise OSError(number, self._program.describe(failed, number))
        return slots.numbers[jail.NETWORK]

    def _is_new(self, fd: int) -> bool:
        try:
            kernel.setns(fd, kernel.CLONE_NEWNET)
            return all(_look(path) == new for path, new in zip(_TABLES, self._new))
        except OSError:
            return False


def _calls() -> List[Call]:
    """Return the calls that make a namespace and bring its loopback interface up."""
    request = struct.pack("16sH14s", b"lo", _IFF_UP, b"")
    return [
        Call("unshare", (kernel.CLONE_NEWNET,)),
        Call("socket", (socket.AF_INET.value, socket.SOCK_DGRAM.value, 0), saved=_SOCKET),
        Call("ioctl", (_SOCKET, _SIOCSIFFLAGS, request)),
        Call("close", (_SOCKET,)),
        Call("openat", (0, _OURS.encode(), os.O_RDONLY | os.O_CLOEXEC), saved=jail.NETWORK),
    ]


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
