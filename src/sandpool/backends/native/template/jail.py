"""What turns a freshly forked child of a template into process 1 of a sandbox, call by call.

    fork (new pid namespace) -> own mount, ipc, uts, cgroup and network namespaces -> writable
    places -> own /proc -> own user namespace, without the right to make more -> no capabilities
    -> landlock -> seccomp

The mount, pid, ipc, uts and network namespaces belong to the template's user namespace, the process
to one below it: nothing inside holds, or can ever get, a capability over any of them.
Every call that fails ends the child; there is no weaker jail to fall back to.

The calls are made of a kind of sandbox once, by `calls`; `branch` has each sandbox make them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
from typing import List, Mapping, Optional, Sequence, Tuple

from . import kernel
from .calls import ANY_ERROR, Call, Memory, Numbers, Program, Slot, Slots
from .root import PROC, WRITABLE, write

TENANT = 1000
"""The tenant's uid and gid inside."""

MASKED = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
)
"""What of /proc tells about the host or acts on it, as container engines hide it."""

_KEPT_CAPABILITIES = (kernel.CAP_KILL, kernel.CAP_SETUID, kernel.CAP_SETGID)
"""What process 1 keeps where tenant and guest have different ids."""

GUEST = Slot(0)
"""The guest's socket."""
NETWORK = Slot(1)
"""The network namespace."""
USER = Slot(2)
"""The user namespace, where a sandbox has ids of its own."""
ROOT = Slot(4)
"""The host's id of the guest, likewise."""
OWNER = Slot(5)
"""The host's id of the tenant, likewise."""
SCOPES = Slot(9)
"""The rules of landlock."""
_PROC = Slot(6)
_FILE = Slot(7)
_SCRATCH = Slot(8)
"""For a byte that is read and means nothing."""
_DIRECTORY = Slot(10)
STDIN, STDOUT, STDERR, ORDERS = Slot(22), Slot(24), Slot(26), Slot(28)
"""Pairs of descriptors that a guest and its spare have: of three pipes, and of two sockets."""
CODE = Slot(30)
"""The file of code that a run is to be of."""
_COVERED = Slot(32)
"""Here begin the descriptors of covered directories."""
MOST_COVERED = 32

_AT = kernel.AT_FDCWD
_AT_REMOVEDIR = 0x200
_SIGNALS = 8
"""Bytes of a set of signals."""
_NEWS_OF_CHILDREN = struct.pack("=Q", 1 << signal.SIGCHLD - 1)
_LAST_FD = 0x7FFF_FFFF
_FIRST_KEPT, _MOST_KEPT = 3, 3
"""Where a jail has the descriptors that stay open, and how many there can be."""
_CAPABILITY_VERSION_3 = 0x2008_0522

Place = Tuple[str, str, int, bool]
"""Where it is made, where it appears, its mode, and whether it is the tenant's own."""


class Provisions:
    """What every jail of a template has in common, made ready once."""

    def __init__(self, seccomp: bytes, numbers: Numbers, privileged: bool) -> None:
        """Make it ready; `seccomp` is the filter that comes on top of the template's."""
        self.numbers = numbers
        self.privileged = privileged
        """Whether a sandbox has host ids of its own."""
        self.slots = Slots()
        self.masks = _find_masks()
        self.filter = kernel.SeccompFilter(seccomp)
        self.has_scopes = kernel.has_landlock_scopes()
        if self.has_scopes:
            self.slots.numbers[SCOPES] = kernel.make_landlock_scopes()
        self.capabilities = kernel.count_capabilities()

    def program(self, calls: Sequence[Call]) -> Program:
        """Lay out calls in memory."""
        return Program(calls, self.numbers)

    def admit(
        self,
        base: Optional[int],
        guest_fd: int,
        network_fd: int,
        user_fd: Optional[int],
    ) -> None:
        """Set what the next sandbox has to itself; `base` is the first of its host ids, if any."""
        numbers = self.slots.numbers
        numbers[GUEST], numbers[NETWORK] = guest_fd, network_fd
        if user_fd is not None:
            numbers[USER] = user_fd
        if base is not None:
            numbers[ROOT], numbers[OWNER] = base, base + TENANT


def reserve() -> None:
    """Take the numbers under which a jail has what stays open; called before that is opened.

    What is moved there in a sandbox is then never in the place of what is moved next.
    """
    while os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) < _FIRST_KEPT + _MOST_KEPT:
        pass


def calls(
    provisions: Provisions,
    options: str,
    places: Sequence[Place],
    covered: Sequence[str],
) -> List[Call]:
    """Return the calls that make a jail.

    `options` are those of the tmpfs with all `places` in it; `covered` are directories that a place
    hides and that are shown again; see `Provisions.admit` for what is in the slots.
    """
    kept = [GUEST]
    if provisions.privileged:
        kept.append(USER)
    if provisions.has_scopes:
        kept.append(SCOPES)
    return [
        _prctl(kernel.PR_SET_PDEATHSIG, 9),
        # A template has it blocked.
        Call("rt_sigprocmask", (signal.SIG_UNBLOCK, _NEWS_OF_CHILDREN, 0, _SIGNALS)),
        Call("setsid", ()),
        Call("setns", (NETWORK, kernel.CLONE_NEWNET)),
        *_keep_only(kept),
        Call(
            "unshare",
            (
                kernel.CLONE_NEWNS
                | kernel.CLONE_NEWIPC
                | kernel.CLONE_NEWUTS
                | kernel.CLONE_NEWCGROUP,
            ),
        ),
        *_mount_places(options, places, covered, provisions.privileged),
        *_mount_proc(provisions.masks),
        # The key ring of whoever started us stays behind; kernels without key rings are fine.
        Call("keyctl", (kernel.KEYCTL_JOIN_SESSION_KEYRING, 0), forgiven=ANY_ERROR),
        *_enter_user_namespace(provisions.privileged),
        # No user namespace below ours, for anybody: no way to new capabilities.
        *_write_in_proc("sys/user/max_user_namespaces", "0"),
        Call("close", (_PROC,)),
        *_give_up_rights(provisions),
        *(_restrict_with_landlock() if provisions.has_scopes else ()),
        _prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, provisions.filter.address),
        Call("chdir", (b"/",)),
        # From here on files are used with the rights of the tenant, whose capabilities are none.
        *(_use_files_as(TENANT) if provisions.privileged else ()),
    ]


def guest_calls(slots: Slots) -> List[Call]:
    """Return the calls after those of a jail, of a guest that has a spare: what they will share.

    It waits for the first word of the host: what is forked before it has spoken is under no limits
    of the host's.
    """
    peek = GUEST, slots.address(_SCRATCH), 1, socket.MSG_PEEK.value, 0, 0
    return [
        Call("recvfrom", peek, forgiven=ANY_ERROR),
        *connect_calls(slots),
    ]


def connect_calls(slots: Slots) -> List[Call]:
    """Return the calls that make what a guest shares with its spare."""
    flags = os.O_CLOEXEC
    kind = socket.SOCK_STREAM.value | socket.SOCK_CLOEXEC.value
    return [
        Call("pipe2", (slots.address(STDIN), flags)),
        Call("pipe2", (slots.address(STDOUT), flags)),
        Call("pipe2", (slots.address(STDERR), flags)),
        Call("socketpair", (socket.AF_UNIX.value, kind, 0, slots.address(ORDERS))),
    ]


def code_calls(privileged: bool, working_dir: str, path: str) -> Tuple[List[Call], List[Call]]:
    """Return the calls that make the file of a run's code, and those that remove it again.

    The first fail, too, where the run could not be in its working directory.
    """
    directory = os.path.dirname(path).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    own = _use_files_as(0) if privileged else []
    tenants = _use_files_as(TENANT) if privileged else []
    made = [
        _open_directory(working_dir),
        Call("close", (_DIRECTORY,)),
        *own,
        Call("mkdirat", (_AT, directory, 0o755)),
        Call("openat", (_AT, path.encode(), flags, 0o644), saved=CODE),
        *tenants,
    ]
    # The tenant of a sandbox with a single id can write there, and may only litter.
    removed = [
        *own,
        Call("unlinkat", (_AT, path.encode(), 0), forgiven=ANY_ERROR),
        Call("unlinkat", (_AT, directory, _AT_REMOVEDIR), forgiven=ANY_ERROR),
        *tenants,
    ]
    return made, removed


def _open_directory(path: str) -> Call:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    return Call("openat", (_AT, path.encode(), flags), saved=_DIRECTORY)


def spare_calls(
    privileged: bool, working_dir: str, tag: Memory, rlimits: Mapping[int, int], orders: int
) -> List[Call]:
    """Return the calls that make a spare a process of the tenant, as the guest's `child` does it.

    `tag` holds its tag twice, as a limit has it.  `orders` is the descriptor on which it gets its
    orders, and the only one that it keeps.
    """
    made = [
        Call("setsid", ()),
        _open_directory(working_dir),
        Call("fchdir", (_DIRECTORY,)),
        Call("dup3", (STDIN, 0, 0)),
        Call("dup3", (Slot(STDOUT + 1), 1, 0)),
        Call("dup3", (Slot(STDERR + 1), 2, 0)),
        # It may be this descriptor already.
        Call("dup3", (Slot(ORDERS + 1), orders, os.O_CLOEXEC), forgiven=errno.EINVAL),
        Call("close_range", (orders + 1, _LAST_FD, 0)),
    ]
    # A kernel without this limit (some gVisor) does without tags.
    made.append(Call("prlimit64", (0, resource.RLIMIT_RTTIME, tag, 0), forgiven=errno.EINVAL))
    for limit, most in rlimits.items():
        made.append(Call("prlimit64", (0, limit, struct.pack("=QQ", most, most), 0)))
    if privileged:
        made += [
            Call("setresgid", (TENANT, TENANT, TENANT)),
            Call("setresuid", (TENANT, TENANT, TENANT)),
        ]
    return [
        *made,
        Call("capset", (_capability_header(), _capability_data(()))),
        # Last, because a change of ids clears it; debuggers and profilers need it.
        _prctl(kernel.PR_SET_DUMPABLE, 1),
    ]


def _keep_only(slots: Sequence[Slot]) -> List[Call]:
    """Move the descriptors in `slots` to the lowest numbers, in that order; close all others."""
    moved = [
        Call("dup3", (slot, fd, os.O_CLOEXEC), saved=slot)
        for fd, slot in enumerate(slots, start=_FIRST_KEPT)
    ]
    return [*moved, Call("close_range", (_FIRST_KEPT + len(slots), _LAST_FD, 0))]


def _mount_places(
    options: str, places: Sequence[Place], covered: Sequence[str], privileged: bool
) -> List[Call]:
    """Mount one tmpfs with the sandbox's disk limits; show its parts where a tenant may write."""
    if len(covered) > MOST_COVERED:
        raise ValueError(f"at most {MOST_COVERED} directories of an image can lie below a place")
    made: List[Call] = []
    # A Python below /tmp, say, is shown again over our own /tmp, read-only as it was.
    shown = [(Slot(_COVERED + index), path) for index, path in enumerate(covered)]
    for slot, path in shown:
        flags = kernel.OPEN_TREE_CLONE | kernel.OPEN_TREE_CLOEXEC
        made.append(Call("open_tree", (_AT, path.encode(), flags), saved=slot))
    made.append(_mount("tmpfs", WRITABLE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options))
    for source, target, mode, is_tenants in places:
        made += _make_dir(source, mode, OWNER if privileged and is_tenants else None)
        made.append(_bind(source, target))
    for slot, path in shown:
        made += [
            Call("mkdirat", (_AT, parent.encode(), 0o777), forgiven=errno.EEXIST)
            for parent in _parents(path)
        ]
        moved = slot, b"", _AT, path.encode(), kernel.MOVE_MOUNT_F_EMPTY_PATH
        made += Call("move_mount", moved), Call("close", (slot,))
    made += _make_dir("/run/sandpool", 0o755, ROOT if privileged else None)
    devpts = "newinstance,ptmxmode=0666,mode=0620"
    made.append(_mount("devpts", "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, devpts))
    # The tree below is reachable through its parts only, and its size holds for them together.
    made.append(_unmount(WRITABLE))
    return made


def _parents(path: str) -> List[str]:
    """Return a directory and all above it, the highest first."""
    names = path.strip("/").split("/")
    return ["/" + "/".join(names[: count + 1]) for count in range(len(names))]


def _mount_proc(masks: Sequence[Tuple[str, str]]) -> List[Call]:
    """Mount our own /proc, read-only, drop the template's; keep a writable handle on ours.

    The template's must go second: an unprivileged mount of proc needs one that is fully visible.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    read_only = kernel.MountAttr(kernel.MOUNT_ATTR_RDONLY, 0, 0, 0)
    cloned = kernel.OPEN_TREE_CLONE | kernel.OPEN_TREE_CLOEXEC
    return [
        _mount("proc", "/proc", "proc", flags),
        _unmount(PROC),
        Call("open_tree", (_AT, b"/proc", cloned), saved=_PROC),
        Call(
            "mount_setattr",
            (_AT, b"/proc", kernel.AT_RECURSIVE, read_only, ctypes.sizeof(read_only)),
        ),
        *(_bind(source, target) for source, target in masks),
    ]


def _enter_user_namespace(privileged: bool) -> List[Call]:
    """Enter a user namespace: the one that we are given, as uid 0, or a new one with one id."""
    if privileged:
        return [
            Call("setns", (USER, kernel.CLONE_NEWUSER)),
            Call("close", (USER,)),
            # The guest's, which no tenant ever is.
            Call("setgroups", (0, 0)),
            Call("setresgid", (0, 0, 0)),
            Call("setresuid", (0, 0, 0)),
        ]
    # Tenant and guest share an id.  The guest needs no capability to signal its own.
    return [
        Call("unshare", (kernel.CLONE_NEWUSER,)),
        *_write_in_proc("self/setgroups", "deny"),
        *_write_in_proc("self/uid_map", f"{TENANT} 0 1"),
        *_write_in_proc("self/gid_map", f"{TENANT} 0 1"),
    ]


def _give_up_rights(provisions: Provisions) -> List[Call]:
    """Keep only the capabilities that process 1 needs, and none that an exec could bring back."""
    kept = _KEPT_CAPABILITIES if provisions.privileged else ()
    return [
        _prctl(kernel.PR_SET_SECUREBITS, kernel.SECUREBITS_NOROOT),
        *(_prctl(kernel.PR_CAPBSET_DROP, number) for number in range(provisions.capabilities)),
        _prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL),
        Call("capset", (_capability_header(), _capability_data(kept))),
        # Changing ids clears both of these, so they come last.
        _prctl(kernel.PR_SET_DUMPABLE, 0),
        _prctl(kernel.PR_SET_PDEATHSIG, 9),
        _prctl(kernel.PR_SET_NO_NEW_PRIVS, 1),
    ]


def _capability_header() -> bytes:
    return struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)


def _capability_data(kept: Sequence[int]) -> bytes:
    """Return sets of capabilities: effective and permitted those, inheritable none."""
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    return struct.pack("=IIIIII", low, low, 0, high, high, 0)


def _restrict_with_landlock() -> List[Call]:
    return [Call("landlock_restrict_self", (SCOPES, 0)), Call("close", (SCOPES,))]


def _use_files_as(identity: int) -> List[Call]:
    # These two return the id before, whether they succeed or not; asking for -1 changes nothing.
    made: List[Call] = []
    for name in ("setfsgid", "setfsuid"):
        made += [Call(name, (identity,)), Call(name, (-1,), least=identity)]
    return made


def _prctl(option: int, *arguments: int) -> Call:
    return Call("prctl", (option, *arguments))


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> Call:
    return Call("mount", (source.encode(), target.encode(), kind.encode(), flags, options.encode()))


def _bind(source: str, target: str) -> Call:
    return Call("mount", (source.encode(), target.encode(), 0, kernel.MS_BIND, 0))


def _unmount(target: str) -> Call:
    return Call("umount2", (target.encode(), kernel.MNT_DETACH))


def _make_dir(path: str, mode: int, owner: Optional[Slot]) -> List[Call]:
    # Twice, because the first is subject to our umask.
    made = [
        Call("mkdirat", (_AT, path.encode(), mode)),
        Call("fchmodat", (_AT, path.encode(), mode)),
    ]
    if owner is not None:
        made.append(Call("fchownat", (_AT, path.encode(), owner, owner, 0)))
    return made


def _write_in_proc(path: str, text: str) -> List[Call]:
    flags = os.O_WRONLY | os.O_CLOEXEC
    return [
        Call("openat", (_PROC, path.encode(), flags), saved=_FILE),
        Call("write", (_FILE, text.encode(), len(text)), least=len(text)),
        Call("close", (_FILE,)),
    ]


def resize_places(pid: int, disk_bytes: int, inodes: int) -> None:
    """Change how much the sandbox of process 1 `pid` may write; called by the template.

    Raises OSError; EINVAL where it has more in it, and then both are as they were.  Only two system
    calls are made in the sandbox's mount namespace, by names that the jail has made and nobody
    inside can change.
    """
    own = os.open(PROC + "/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"{PROC}/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(theirs, kernel.CLONE_NEWNS)
        finally:
            os.close(theirs)
        try:
            flags = kernel.MS_REMOUNT | kernel.MS_NOSUID | kernel.MS_NODEV
            options = f"size={disk_bytes},nr_inodes={inodes}"
            kernel.mount(None, "/tmp", None, flags, options)
        finally:
            _return_to(own)
    finally:
        os.close(own)


def _return_to(namespace: int) -> None:
    """Go back to the template's own mount namespace; a template that cannot is none any more."""
    try:
        kernel.setns(namespace, kernel.CLONE_NEWNS)
    except OSError:
        os._exit(1)


def _find_masks() -> List[Tuple[str, str]]:
    """Return what has to cover what of /proc, as far as this kernel has it."""
    found: List[Tuple[str, str]] = []
    for name in MASKED:
        path = PROC + "/" + name
        if os.path.lexists(path):
            # The mount point of the writable places is an empty directory while we are here.
            found.append((WRITABLE if os.path.isdir(path) else "/dev/null", "/proc/" + name))
    return found


def make_user_namespace(base: int, count: int) -> int:
    """Return a user namespace that has the host's ids from `base` on, open; raises OSError.

    A process is in it while we, who may, write which ids it has.
    """
    read, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(write_end, b"u")
            select.select([], [], [])  # until it is killed
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        if not os.read(read, 1):
            raise OSError(errno.EPERM, "a user namespace could not be made")
        for name in ("uid_map", "gid_map"):
            write(f"{PROC}/{pid}/{name}", f"0 {base} {count}")
        return os.open(f"{PROC}/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
