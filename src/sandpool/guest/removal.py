"""Trees that are removed, from their leaves, however deep they are.

One descriptor is held, on the directory where we are, and names are relative to it: no path gets
too long.  The way up is checked against the way down, so that a tree which its tenant moves
meanwhile leads us nowhere else.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, List, Tuple

if TYPE_CHECKING:
    from .slicing import Slices

_AT_ONCE = 64
"""Entries in one slice."""

_INSIDE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABOVE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def discard(path: str) -> Slices:
    """Remove whatever `path` is, without following it."""
    if os.path.isdir(path) and not os.path.islink(path):
        yield from remove_tree(path)
    else:
        os.unlink(path)


def remove_tree(path: str) -> Slices:
    """Remove a directory and all below it.  OSError names the first that could not be removed."""
    above, name = os.path.split(path)
    descent = _Descent(above or "/")
    try:
        descent.enter(name)
        while descent.depth:
            descent.remove_some()
            yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, descent.path) from error
    finally:
        descent.close()


class _Descent:
    """Where we are in a tree, and how we came there."""

    def __init__(self, path: str) -> None:
        self._top = path
        self._fd = os.open(path, _ABOVE)
        self._trail: List[Tuple[str, Tuple[int, int]]] = []
        """(name, identity of the directory that it is in) of each directory entered."""

    @property
    def depth(self) -> int:
        """How many directories we are below where we began."""
        return len(self._trail)

    @property
    def path(self) -> str:
        """Where we are, for people."""
        return os.path.join(self._top, *(name for name, _ in self._trail))

    def enter(self, name: str) -> None:
        """Go down."""
        inside = os.open(name, _INSIDE, dir_fd=self._fd)
        self._trail.append((name, _identity(self._fd)))
        self._move_to(inside)

    def remove_some(self) -> None:
        """Remove some of what is here, or go down, or remove this directory and go up."""
        with os.scandir(self._fd) as entries:
            for _, found in zip(range(_AT_ONCE), entries):
                if found.is_dir(follow_symlinks=False):
                    self.enter(found.name)
                    return
                os.unlink(found.name, dir_fd=self._fd)
        self._leave()

    def _leave(self) -> None:
        name, identity = self._trail[-1]
        above = os.open("..", _INSIDE if len(self._trail) > 1 else _ABOVE, dir_fd=self._fd)
        try:
            _remove_from(above, identity, name)
        except OSError as error:
            os.close(above)
            if error.errno != errno.ENOTEMPTY:
                raise
            return  # more than one slice of entries: there is another step
        self._trail.pop()
        self._move_to(above)

    def _move_to(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """Let go of where we are."""
        os.close(self._fd)


def _remove_from(above: int, identity: Tuple[int, int], name: str) -> None:
    if _identity(above) != identity:
        raise OSError(errno.EBUSY, "It was moved while it was being removed")
    os.rmdir(name, dir_fd=above)


def _identity(fd: int) -> Tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
