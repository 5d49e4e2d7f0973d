"""Turns a freshly forked child of a template into process 1 of a sandbox.

    fork (new pid namespace) -> own mount, ipc, uts, cgroup and network namespaces -> writable
    places -> own /proc -> own user namespace, without the right to make more -> no capabilities
    -> landlock -> seccomp

The mount, pid, ipc, uts and network namespaces belong to the template's user namespace, the process
to one below it: nothing inside holds, or can ever get, a capability over any of them.
Every step that fails ends the child; there is no weaker jail to fall back to.
"""

from __future__ import annotations

import os
from typing import FrozenSet, List, Optional, Tuple

from . import kernel
from .kind import Kind
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

_KEPT_CAPABILITIES = frozenset((kernel.CAP_KILL, kernel.CAP_SETUID, kernel.CAP_SETGID))
"""What process 1 keeps where tenant and guest have different ids."""


class Provisions:
    """What every jail of a template has in common, made ready once."""

    def __init__(self, seccomp: bytes) -> None:
        """Make it ready; `seccomp` is the filter that comes on top of the template's."""
        self.masks = _find_masks()
        self.filter = kernel.SeccompFilter(seccomp)
        self.scopes = kernel.make_landlock_scopes() if kernel.has_landlock_scopes() else None


def enter(
    kind: Kind,
    base: Optional[int],
    provisions: Provisions,
    guest_fd: int,
    network_fd: int,
    user_fd: Optional[int],
    map_fd: Optional[int],
) -> None:
    """Become a sandbox of a kind; `base` is the first of its host ids, if it has some of its own.

    `user_fd` is a user namespace that has our ids already.  Where it is None we make one, and
    `map_fd` is a socket on which the template, which alone may, is asked to write the map of its
    ids; where that is None too, we write it ourselves.
    Raises OSError at the first step that fails.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    os.setsid()
    kernel.setns(network_fd, kernel.CLONE_NEWNET)
    scopes = provisions.scopes
    kept = [fd for fd in (guest_fd, user_fd, map_fd, scopes) if fd is not None]
    kernel.close_all_but(kept)
    kernel.unshare(
        kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
    )
    _mount_places(kind, TENANT + base if base is not None else None)
    proc_fd = _mount_proc(provisions.masks)
    kernel.new_session_keyring()

    if user_fd is not None:
        kernel.setns(user_fd, kernel.CLONE_NEWUSER)
        os.close(user_fd)
    else:
        _make_user_namespace(proc_fd, map_fd)
    # No user namespace below ours, for anybody: no way to new capabilities.
    _write_at(proc_fd, "sys/user/max_user_namespaces", "0")
    os.close(proc_fd)
    keep_capabilities: FrozenSet[int] = frozenset()
    if base is not None:
        _become_root()
        keep_capabilities = _KEPT_CAPABILITIES
    kernel.prctl(kernel.PR_SET_SECUREBITS, kernel.SECUREBITS_NOROOT)
    kernel.drop_capabilities(keep_capabilities)
    # Changing ids clears both of these, so they come last.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if scopes is not None:
        kernel.restrict_with_landlock(scopes)
        os.close(scopes)
    provisions.filter.load()
    os.chdir("/")


def _mount_places(kind: Kind, owner: Optional[int]) -> None:
    """Mount one tmpfs with the sandbox's disk limits; show its parts where a tenant may write."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    # A Python below /tmp, say, is shown again over our own /tmp, read-only as it was.
    covered = [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in kind.covered]
    kernel.mount("tmpfs", WRITABLE, "tmpfs", flags, kind.options)
    for source, target, mode, is_tenants in kind.places:
        os.mkdir(source)
        os.chmod(source, mode)
        if owner is not None and is_tenants:
            os.chown(source, owner, owner)
        kernel.mount(source, target, None, kernel.MS_BIND)
    for fd, path in covered:
        os.makedirs(path, exist_ok=True)
        kernel.mount(f"{PROC}/self/fd/{fd}", path, None, kernel.MS_BIND)
        os.close(fd)
    run_dir = "/run/sandpool"
    os.mkdir(run_dir, 0o755)
    if owner is not None:
        os.chown(run_dir, owner - TENANT, owner - TENANT)
    kernel.mount(
        "devpts",
        "/dev/pts",
        "devpts",
        kernel.MS_NOSUID | kernel.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )
    # The tree below is reachable through its parts only, and its size holds for them together.
    kernel.unmount(WRITABLE)


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


def _mount_proc(masks: List[Tuple[str, str]]) -> int:
    """Mount our own /proc, read-only, drop the template's; return a writable handle on ours.

    The template's must go second: an unprivileged mount of proc needs one that is fully visible.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags)
    kernel.unmount(PROC)
    handle = kernel.clone_mount("/proc")
    kernel.set_mount_flags("/proc", kernel.MOUNT_ATTR_RDONLY)
    for source, target in masks:
        kernel.mount(source, target, None, kernel.MS_BIND)
    return handle


def _make_user_namespace(proc_fd: int, map_fd: Optional[int]) -> None:
    """Enter a new user namespace with ids of our own."""
    kernel.unshare(kernel.CLONE_NEWUSER)
    if map_fd is None:
        # One id: tenant and guest share it.  The guest needs no capability to signal its own uid.
        _write_at(proc_fd, "self/setgroups", "deny")
        _write_at(proc_fd, "self/uid_map", f"{TENANT} 0 1")
        _write_at(proc_fd, "self/gid_map", f"{TENANT} 0 1")
    else:
        os.write(map_fd, b"m")
        if os.read(map_fd, 1) != b"k":
            raise OSError(1, "the template did not map our ids")
        os.close(map_fd)


def _become_root() -> None:
    """Be uid 0 of our user namespace: the guest's, which no tenant ever is."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write_at(directory: int, path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def map_ids(pid: int, base: int, count: int) -> None:
    """Give the user namespace of `pid` the host's ids from `base`; called by the template."""
    text = f"0 {base} {count}"
    write(f"{PROC}/{pid}/uid_map", text)
    write(f"{PROC}/{pid}/gid_map", text)
