"""The seccomp filter of every sandbox, compiled once by libseccomp.

What a sandbox's programs have no business with is denied with EPERM; the user-namespace and network
limits do not rest on it, it narrows what of the kernel a tenant can reach.
"""

from __future__ import annotations

import errno
import importlib
import tempfile
from functools import cache

_DENIED = (
    # New namespaces, roots and mounts.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "name_to_handle_at",
    # Kernel facilities with a long history of holes, or none of a tenant's business.
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "keyctl",
    "add_key",
    "request_key",
    "fanotify_init",
    "kcmp",
    "lookup_dcookie",
    "quotactl",
    "quotactl_fd",
    "syslog",
    "vhangup",
    "acct",
    "swapon",
    "swapoff",
    "reboot",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "nfsservctl",
    "iopl",
    "ioperm",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "stime",
    "sethostname",
    "setdomainname",
    "move_pages",
    "mbind",
    "migrate_pages",
    "set_mempolicy",
    "process_madvise",
    "uselib",
    "ustat",
    "sysfs",
    "_sysctl",
    "vm86",
    "vm86old",
    "modify_ldt",
)
_NAMESPACE_FLAGS = (
    0x0002_0000,  # NEWNS
    0x0200_0000,  # NEWCGROUP
    0x0400_0000,  # NEWUTS
    0x0800_0000,  # NEWIPC
    0x1000_0000,  # NEWUSER
    0x2000_0000,  # NEWPID
    0x4000_0000,  # NEWNET
)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_FAMILIES = frozenset((_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK))
_NETLINK_ROUTE = 0
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_BINARY_TREE = 2


def missing() -> str | None:
    """Say why filters cannot be made here; None if they can."""
    try:
        importlib.import_module("pyseccomp")
    except (ImportError, RuntimeError, OSError) as error:
        return f"libseccomp is missing ({error})"
    return None


@cache
def program() -> bytes:
    """Return the filter as BPF instructions, for `template/kernel.py` to load."""
    import pyseccomp as lib

    # Other architectures' system calls end the process: that is libseccomp's own default.
    filter_ = lib.SyscallFilter(defaction=lib.ALLOW)
    filter_.set_attr(lib.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    denied = lib.ERRNO(errno.EPERM)
    no_family = lib.ERRNO(errno.EAFNOSUPPORT)
    for name in _DENIED:
        try:
            filter_.add_rule(denied, name)
        except (RuntimeError, OSError, ValueError):
            continue  # a call that this architecture or library does not know
    for flag in _NAMESPACE_FLAGS:
        filter_.add_rule(denied, "clone", lib.Arg(0, lib.MASKED_EQ, flag, flag))
    # Its flags lie in memory, out of a filter's sight; the C libraries fall back to clone.
    filter_.add_rule(lib.ERRNO(errno.ENOSYS), "clone3")
    for name in ("socket", "socketpair"):
        filter_.add_rule(no_family, name, lib.Arg(0, lib.GT, _AF_NETLINK))
        for family in range(_AF_NETLINK):
            if family not in _FAMILIES:
                filter_.add_rule(no_family, name, lib.Arg(0, lib.EQ, family))
    filter_.add_rule(
        denied, "socket", lib.Arg(0, lib.EQ, _AF_NETLINK), lib.Arg(2, lib.NE, _NETLINK_ROUTE)
    )
    for request in _TERMINAL_INJECTION:
        # The kernel looks at the low half only.
        filter_.add_rule(denied, "ioctl", lib.Arg(1, lib.MASKED_EQ, 0xFFFF_FFFF, request))
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()
