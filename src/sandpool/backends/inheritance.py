"""Keeps our sockets out of forked copies of the host program.

A guest ends when its connection does.  If the host program forks (`multiprocessing` with its `fork`
method, for one), the copy would hold every connection open after the original has been killed.
Descriptors close by themselves on exec; this closes them on a plain fork too.
"""

from __future__ import annotations

import os
import socket
from weakref import WeakSet

_guarded: WeakSet[socket.socket] = WeakSet()


def keep_from_forks(sock: socket.socket) -> None:
    """Close `sock` in every child that this process forks from now on."""
    _guarded.add(sock)


def _close_all() -> None:
    for sock in list(_guarded):
        sock.close()


os.register_at_fork(after_in_child=_close_all)
