"""Operations on single paths, and what all operations on files have in common.

They happen with the tenant's rights (`rights.use_files_as`) and follow links as the kernel does, so
that a request can reach what its tenant can reach and nothing else.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from typing import TYPE_CHECKING, Any

from .refusal import Refusal, file_failed
from .relocation import relocate
from .slicing import Slicing

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request

_TYPES = {modes.S_IFREG: "file", modes.S_IFDIR: "directory", modes.S_IFLNK: "symlink"}


def readable(name: str) -> str:
    """Return a name as text: what is not UTF-8 in it is replaced, because JSON cannot carry it."""
    return os.fsencode(name).decode("utf-8", "replace")


def entry(path: str, found: os.stat_result) -> dict[str, Any]:
    """Return the *entry* of the protocol page for a path."""
    kind = _TYPES.get(modes.S_IFMT(found.st_mode), "other")
    described: dict[str, Any] = {
        "name": readable(os.path.basename(path) or "/"),
        "path": readable(path),
        "type": kind,
        "size": found.st_size,
        "mode": modes.S_IMODE(found.st_mode),
        "mtime": found.st_mtime,
    }
    if kind == "symlink":
        try:
            described["target"] = readable(os.readlink(path))
        except OSError:
            pass  # it has just been replaced by something else
    return described


def open_regular(path: str, flags: int, mode: int = 0o600) -> tuple[int, os.stat_result]:
    """Open a regular file without ever waiting for one that is not; Refusal for all others."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    except OSError as error:
        raise file_failed(error, path) from error
    found = os.fstat(fd)
    if not modes.S_ISREG(found.st_mode):
        os.close(fd)
        number = errno.EISDIR if modes.S_ISDIR(found.st_mode) else errno.EINVAL
        reason = "Is a directory" if number == errno.EISDIR else "It is not a regular file"
        raise Refusal("file_failed", reason, errno=number, path=path[:4096])
    return fd, found


def normal(guest: Guest, path: str) -> str:
    """Return `path` as seen from the working directory, without what `.` and `//` add to it."""
    # `..` stays: behind a link it means something else than the text says.
    parts = guest.binding.resolve(path).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def stat(guest: Guest, request: Request, fields: Fields) -> None:
    """Describe one path."""
    path = normal(guest, fields.path("path"))
    follow = fields.flag("follow", True)
    fields.finish()
    try:
        found = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        raise file_failed(error, path) from error
    request.respond({"entry": entry(path, found)})


def make_directory(guest: Guest, request: Request, fields: Fields) -> None:
    """Make a directory."""
    path = normal(guest, fields.path("path"))
    parents = fields.flag("parents", True)
    exist_ok = fields.flag("exist_ok", True)
    mode = fields.integer("mode", 0o755, high=0o7777)
    fields.finish()
    try:
        if parents:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, mode)
    except FileExistsError as error:
        if not (exist_ok and os.path.isdir(path)):
            raise file_failed(error, path) from error
    except OSError as error:
        raise file_failed(error, path) from error
    request.respond({})


def move(guest: Guest, request: Request, fields: Fields) -> None:
    """Rename, or move to another of the sandbox's file systems."""
    source = normal(guest, fields.path("source"))
    target = normal(guest, fields.path("target"))
    overwrite = fields.flag("overwrite", True)
    fields.finish()
    try:
        if not overwrite and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if os.path.isdir(target) and not os.path.isdir(source):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        os.rename(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            Slicing(guest, request, relocate(source, target, request.number), source)
            return
        path = target if error.errno in _ABOUT_TARGET else source
        raise file_failed(error, path) from error
    request.respond({})


_ABOUT_TARGET = frozenset((errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL))
