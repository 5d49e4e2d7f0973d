"""What only prctl, capset and the like can do: give up rights, hide, act with the tenant's.

Nothing here decides; every function is one or two system calls.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CLOSE_RANGE = 436
_LAST_FD = 0xFFFF_FFFF
_FALLBACK_FDS = 65_536
_SYS_IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "riscv64": 31}.get(os.uname().machine)
_IOPRIO_WHO_PROCESS = 1

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_setfsuid, _setfsgid = _libc.setfsuid, _libc.setfsgid
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_capset = _libc.capset

_no_capabilities_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_no_capabilities = (ctypes.c_uint32 * 6)()


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def set_dumpable(value: bool) -> None:
    """Allow or forbid the processes of our uid to trace us and read our memory."""
    if _prctl(_PR_SET_DUMPABLE, int(value), 0, 0, 0) != 0:
        raise _fail("PR_SET_DUMPABLE")


def forbid_new_privileges() -> None:
    """Make set-id programs and file capabilities give nothing to us and our children."""
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _fail("PR_SET_NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Give up every capability for good; the bounding set is the jail's business."""
    if _capset(_no_capabilities_header, _no_capabilities) != 0:
        raise _fail("capset")


def become_tenant(uid: int, gid: int) -> None:
    """Change every id of this process, and with them lose the rights of the guest."""
    if os.getgroups():
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def use_files_as(uid: int, gid: int) -> None:
    """Make file operations happen with the rights of `uid`; PermissionError if that failed."""
    _setfsgid(gid)
    _setfsuid(uid)
    # These two report the previous id whether they succeed or not; asking for -1 changes nothing.
    if _setfsgid(-1) != gid or _setfsuid(-1) != uid:
        raise PermissionError(1, f"cannot use files as {uid}:{gid}")


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    if _syscall(_SYS_CLOSE_RANGE, first, _LAST_FD, 0) != 0:
        os.closerange(first, _FALLBACK_FDS)


def io_priority() -> int:
    """Return the priority of our input and output; -1 where the kernel cannot be asked."""
    if _SYS_IOPRIO_GET is None:
        return -1
    found: int = _syscall(_SYS_IOPRIO_GET, _IOPRIO_WHO_PROCESS, 0)
    return found
