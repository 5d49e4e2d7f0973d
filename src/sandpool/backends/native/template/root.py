"""Builds a template's root file system, from a layout that the host's side has decided.

Runs once per template.  What it makes is shared, read-only, by every sandbox of the template; what
a sandbox may write is mounted over it in `jail`.  The few mounts made here are copied on every
fork, so each one costs every sandbox about a microsecond: small files are copied instead.

The layout is a dict:
    binds   [[source on the host, target]]   read-only, with everything below
    links   [[target, text]]                 symbolic links
    copies  [[source on the host, target]]   files and trees, only what everybody may read
    files   [[target, text]]                 made from text
    dirs    [target]                         empty directories, mostly mount points
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any, Dict, Optional

from . import kernel

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PROC = "/.sandpool/proc"
"""The /proc of the template's own pid namespace."""
LIBRARY = "/.sandpool/lib"
WRITABLE = "/.sandpool/rw"

_OLD = "/old"
_NEW = "/new"
_MAX_COPY = 4 * 1024 * 1024


HOSTNAME = "sandbox"


def detach_from_host(privileged: bool, above: Optional[int]) -> None:
    """Enter mount, pid and uts namespaces (and, unprivileged, a user namespace) of our own.

    The name of the host is what every sandbox will find it to be.

    `above` is open on the user namespace to begin below, where that is not our own: whoever is root
    there may then connect the sandboxes to a network.

    Unprivileged, we become uid 0 of the new user namespace, so that capabilities outlive an exec of
    the image's interpreter; it maps to the one id of whoever started us.  The caller goes on as
    process 1 of the pid namespace, so that the kernel ends every sandbox with its template; the
    process that was started stays behind only to wait for it.
    """
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS
    if privileged:
        kernel.unshare(flags)
    else:
        if above is not None:
            kernel.setns(above, kernel.CLONE_NEWUSER)
            os.close(above)
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | flags)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
    socket.sethostname(HOSTNAME)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    pid = os.fork()
    if pid:
        kernel.close_all_but(())
        os._exit(os.waitpid(pid, 0)[1] and 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)


def build(layout: Dict[str, Any]) -> None:
    """Make the root that `layout` describes and change into it; the host's is gone afterwards."""
    os.umask(0o022)
    # A tmpfs to stand on while both trees are visible; its place does not matter.
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m")
    os.mkdir("/tmp" + _OLD)
    os.mkdir("/tmp" + _NEW)
    kernel.pivot_root("/tmp", "/tmp" + _OLD)
    os.chdir("/")
    kernel.mount("tmpfs", _NEW, "tmpfs", kernel.MS_NOSUID, "mode=755,size=64m")

    for source, target in sorted(layout["binds"], key=lambda pair: pair[1].count("/")):
        _bind_read_only(source, target)
    for target in layout["dirs"]:
        os.makedirs(_NEW + target, exist_ok=True)
    for target, text in layout["links"]:
        _make_parents(target)
        if not os.path.lexists(_NEW + target):
            os.symlink(text, _NEW + target)
    for source, target in layout["copies"]:
        _copy(_OLD + source, _NEW + target)
    for target, text in layout["files"]:
        _make_file(target, text)
    _make_devices()
    os.makedirs(_NEW + PROC, exist_ok=True)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", _NEW + PROC, "proc", flags)

    kernel.set_mount_flags(
        _NEW,
        kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV,
        recursive=False,
    )
    os.chdir(_NEW)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")


def write(path: str, text: str) -> None:
    """Write a small control file in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _make_parents(target: str) -> None:
    os.makedirs(os.path.dirname(_NEW + target), exist_ok=True)


def _make_file(target: str, text: str) -> None:
    path = _NEW + target
    _make_parents(target)
    # What an image has there may be a link that leads, from here, to the host's files.
    if os.path.lexists(path):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
        file.write(text)


_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV


def _bind_read_only(source: str, target: str) -> None:
    if os.path.isdir(_OLD + source):
        os.makedirs(_NEW + target, exist_ok=True)
    else:
        _make_parents(target)
        with open(_NEW + target, "w"):
            pass
    kernel.bind(_OLD + source, _NEW + target)
    kernel.set_mount_flags(_NEW + target, _READ_ONLY)


def _make_devices() -> None:
    os.makedirs(_NEW + "/dev/pts", exist_ok=True)
    os.makedirs(_NEW + "/dev/shm", exist_ok=True)
    for name in DEVICES:
        if not os.path.exists(_OLD + "/dev/" + name):
            continue
        target = _NEW + "/dev/" + name
        with open(target, "w"):
            pass
        kernel.bind(_OLD + "/dev/" + name, target)
        kernel.set_mount_flags(target, kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NOEXEC)
    for name, text in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        os.symlink(text, _NEW + "/dev/" + name)


def _copy(source: str, target: str) -> None:
    """Copy what everybody may read; what is private, special or huge on the host is left out."""
    try:
        found = os.lstat(source)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(found.st_mode):
        if found.st_mode & 0o005 != 0o005:
            return
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(source):
            _copy(source + "/" + name, target + "/" + name)
    elif stat.S_ISREG(found.st_mode) and found.st_mode & 0o004 and found.st_size <= _MAX_COPY:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(reading, "rb") as reader, open(target, "xb") as writer:
            writer.write(reader.read(_MAX_COPY))
