"""Namespaces of this process and its threads, for Pythons whose `os` cannot change them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

NEWUSER = 0x1000_0000
NEWPID = 0x2000_0000
NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, name: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def end_with_parent() -> None:
    """Have this process killed when the one that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")


def become_root() -> None:
    """Enter a new user namespace as its root, which outside is who we are now."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def within(network: int | None, work: Callable[[], None]) -> None:
    """Do `work` in a thread of its own, in another network namespace or (None) in a new one.

    Raises what `work` raises.  This thread stays where it is: an ordinary user could not come back.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            if network is None:
                unshare(NEWNET)
            else:
                _check(_libc.setns(network, NEWNET), "setns")
            work()
        except BaseException as error:  # noqa: BLE001 (raised where it belongs, below)
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
