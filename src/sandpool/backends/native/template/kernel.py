"""The system calls that Python's standard library lacks, one thin function each.

Failures raise OSError with the call's name.  Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
from typing import Collection, Optional

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 4

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

# SECBIT_NOROOT and its lock, and the lock of KEEP_CAPS: uid 0 means nothing on exec, for good.
SECUREBITS_NOROOT = 0x1 | 0x2 | 0x20

CAP_CHOWN = 0
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7

KEYCTL_JOIN_SESSION_KEYRING = 1

_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 0x1
_LANDLOCK_SCOPE_SIGNAL = 0x2
_LANDLOCK_WITH_SCOPES = 6
"""The first version of its interface that can scope."""

_libc = ctypes.CDLL(None, use_errno=True)
# Prototypes, once: without them every call makes an object of each argument.
_text, _long = ctypes.c_char_p, ctypes.c_ulong
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_unshare, _setns, _umount2 = _libc.unshare, _libc.setns, _libc.umount2
_mount, _prctl = _libc.mount, _libc.prctl
_mount.argtypes = [_text, _text, _text, _long, _text]
_umount2.argtypes = [_text, ctypes.c_int]
_prctl.argtypes = [ctypes.c_int, _long, _long, _long, _long]

# These have one number on every architecture.
_SYS_MOUNT_SETATTR = 442
_SYS_CLOSE_RANGE = 436
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_PIVOT_ROOT = {
    "x86_64": 155,
    "aarch64": 41,
    "riscv64": 41,
    "ppc64le": 203,
    "s390x": 217,
}.get(platform.machine())


def _check(result: int, *call: object) -> int:
    """Return `result`; OSError that names the `call` if it stands for a failure."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{' '.join(map(str, call))}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones."""
    _check(_unshare(flags), "unshare", flags)


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that `fd` is open on."""
    _check(_setns(fd, kind), "setns", kind)


def mount(
    source: Optional[str],
    target: str,
    kind: Optional[str] = None,
    flags: int = 0,
    data: Optional[str] = None,
) -> None:
    """Mount `source`, or a file system of `kind`, on `target`."""
    _check(
        _mount(
            source.encode() if source is not None else None,
            os.fsencode(target),
            kind.encode() if kind is not None else None,
            flags,
            data.encode() if data is not None else None,
        ),
        "mount",
        kind or source,
        "on",
        target,
    )


def bind(source: str, target: str) -> None:
    """Bind-mount `source` with everything below it."""
    flags = MS_BIND | MS_REC
    _check(
        _mount(os.fsencode(source), os.fsencode(target), None, flags, None),
        "bind",
        source,
        "on",
        target,
    )


def unmount(target: str) -> None:
    """Detach the mount at `target` with everything below it."""
    _check(_umount2(os.fsencode(target), MNT_DETACH), "umount", target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root, and put the old one at `old`."""
    if _SYS_PIVOT_ROOT is None:
        raise OSError(38, "pivot_root: unknown on " + platform.machine())
    _check(_syscall(_SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), "pivot_root", new)


class MountAttr(ctypes.Structure):
    """The argument of mount_setattr."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def set_mount_flags(path: str, flags: int, recursive: bool = True) -> None:
    """Add MOUNT_ATTR_* to the mount at `path` and, if `recursive`, to all below it."""
    attr = MountAttr(flags, 0, 0, 0)
    _check(
        _syscall(
            _SYS_MOUNT_SETATTR,
            AT_FDCWD,
            os.fsencode(path),
            AT_RECURSIVE if recursive else 0,
            ctypes.byref(attr),
            ctypes.sizeof(attr),
        ),
        "mount_setattr",
        path,
    )


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> None:
    """Set a property of this process; `option` says which."""
    _check(_prctl(option, arg2, arg3, 0, 0), "prctl", option)


def count_capabilities() -> int:
    """Return how many capabilities this kernel has: it refuses to read one past the last."""
    number = 0
    while _prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        number += 1
    if number == 0 or ctypes.get_errno() != errno.EINVAL:
        _check(-1, "prctl(PR_CAPBSET_READ)")
    return number


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor from 3 up that is not in `keep`."""
    low = 3
    for fd in sorted(keep):
        if fd > low:
            _close_range(low, fd - 1)
        low = max(low, fd + 1)
    _close_range(low, 0x7FFFFFFF)


def _close_range(low: int, high: int) -> None:
    if _syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(low), ctypes.c_uint(high), 0) < 0:
        os.closerange(low, min(high + 1, 65536))


def has_landlock_scopes() -> bool:
    """Whether the kernel can keep signals and abstract sockets within a tree of processes."""
    version: int = _syscall(
        _SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION
    )
    return version >= _LANDLOCK_WITH_SCOPES


def make_landlock_scopes() -> int:
    """Return a set of rules: signal, and connect by abstract sockets, only within one tree.

    Needs a kernel of which `has_landlock_scopes` is true.
    """
    scopes = _LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | _LANDLOCK_SCOPE_SIGNAL
    rules = struct.pack("=QQQ", 0, 0, scopes)
    return _check(
        _syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0),
        "landlock_create_ruleset",
    )


def listen_for(number: int) -> int:
    """Block a signal; return a descriptor, non-blocking, that can be read when it has come."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (number,))
    signals = (ctypes.c_ulong * (1024 // 8 // ctypes.sizeof(ctypes.c_ulong)))()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    signals[(number - 1) // bits] = 1 << (number - 1) % bits
    return _check(_libc.signalfd(-1, signals, os.O_CLOEXEC | os.O_NONBLOCK), "signalfd")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


class SeccompFilter:
    """A seccomp filter, 8 bytes an instruction, laid out as the kernel wants it."""

    def __init__(self, program: bytes) -> None:
        """Lay it out."""
        self._code = ctypes.create_string_buffer(program, len(program))
        self._program = _Program(len(program) // 8, ctypes.addressof(self._code))
        self.address = ctypes.addressof(self._program)
        """Where it is, for the call that loads it."""

    def load(self) -> None:
        """Put it on this process and its children."""
        _check(_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self.address, 0, 0), "seccomp")
