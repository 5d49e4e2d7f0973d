"""Moves from one of a sandbox's file systems to another, which no rename can do.

A copy is made beside the target, put in its place, and then the source is removed.  A move that
fails or is cancelled before that leaves source and target as they were.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, List, Tuple

from . import removal

if TYPE_CHECKING:
    from .slicing import Slices

_AT_ONCE = 1 << 20
"""Bytes in one slice."""


def beside(target: str, number: int) -> str:
    """Return a path in the same directory for what is not finished; `number` tells it apart."""
    directory, name = os.path.split(target)
    # Cut, because the name may be as long as names can be.
    return f"{directory}/.{name[:64]}.{number}.part"


def relocate(source: str, target: str, number: int) -> Slices:
    """Move `source`, whatever it is, to `target`, which may be there as far as `rename` allows."""
    unfinished = beside(target, number)
    try:
        yield from _copy(source, unfinished)
        os.rename(unfinished, target)
    except Exception:
        if os.path.lexists(unfinished):
            yield from removal.discard(unfinished)
        raise
    yield from removal.discard(source)


def _copy(source: str, target: str) -> Slices:
    places = [(source, target)]
    directories: List[Tuple[str, os.stat_result]] = []
    while places:
        source, target = places.pop()
        found = os.lstat(source)
        if stat.S_ISREG(found.st_mode):
            yield from _copy_file(source, target)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(target, 0o700)
            directories.append((target, found))
            places += [(f"{source}/{name}", f"{target}/{name}") for name in os.listdir(source)]
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), target)
        else:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        yield
    # Last, because a directory may be one that its owner cannot write to.
    for target, found in reversed(directories):
        os.chmod(target, stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_file(source: str, target: str) -> Slices:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(reading)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while True:
                sent = os.sendfile(writing, reading, done, _AT_ONCE)
                if sent == 0:
                    break
                done += sent
                yield
            os.fchmod(writing, stat.S_IMODE(found.st_mode))
            os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)
