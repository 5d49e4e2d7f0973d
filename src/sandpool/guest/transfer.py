"""The contents of files on their way out of the sandbox and into it, a bounded step at a time.

Invariants:

    X1  A file is written beside its target under a name of its own and renamed at the end, so that
        the target is the old file or the new one, never a part; `append` alone is not like that.
    X2  Whatever ends a transfer closes its descriptor and removes the file that was not finished.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from . import frames
from .files import normal, open_regular
from .refusal import Refusal, file_failed
from .relocation import beside
from .request import Activity

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request

_DEFAULT_MODE = 0o644


def _too_large(path: str, max_size: int) -> Refusal:
    return Refusal("file_too_large", f"{path[:4096]} has more than {max_size} bytes")


def read(guest: Guest, request: Request, fields: Fields) -> None:
    """Send a regular file."""
    path = normal(guest, fields.path("path"))
    offset = fields.integer("offset", 0)
    length = fields.integer("length", None)
    max_size = fields.integer("max_size", None)
    fields.finish()
    fd, found = open_regular(path, os.O_RDONLY)
    try:
        if max_size is not None and found.st_size - offset > max_size:
            raise _too_large(path, max_size)
        os.lseek(fd, offset, os.SEEK_SET)
    except OSError as error:
        os.close(fd)
        raise file_failed(error, path) from error
    except Refusal:
        os.close(fd)
        raise
    _Reading(guest, request, path, fd, found, length, max_size)


class _Reading(Activity):
    """A file on its way out."""

    def __init__(
        self,
        guest: Guest,
        request: Request,
        path: str,
        fd: int,
        found: os.stat_result,
        length: int | None,
        max_size: int | None,
    ) -> None:
        self._guest = guest
        self._request = request
        self._path = path
        self._fd = fd
        self._found = found
        self._left = length
        self._max_size = max_size
        self._sent = 0
        self._is_going = False
        request.activity = self
        self._go_on()

    def resume(self, request: Request) -> None:
        """There is credit again."""
        self._go_on()

    def cancel(self, request: Request) -> None:
        """Stop."""
        self._close()
        super().cancel(request)

    def _go_on(self) -> None:
        if not self._is_going and self._fd >= 0:
            self._is_going = True
            self._guest.loop.soon(self._step)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _step(self) -> None:
        self._is_going = False
        if self._fd < 0:
            return
        if self._guest.connection.is_congested:
            self._guest.connection.when_clear(self._go_on)
            return
        size = min(frames.CHUNK, self._request.credit)
        if self._left is not None:
            size = min(size, self._left)
            if self._left == 0:
                self._finish()
                return
        if size == 0:
            return  # `resume` goes on
        try:
            data = os.read(self._fd, size)
        except OSError as error:
            self._fail(file_failed(error, self._path))
            return
        self._sent += len(data)
        if self._max_size is not None and self._sent > self._max_size:
            # It has grown since it was opened, or is one of those that do not tell their size.
            self._fail(_too_large(self._path, self._max_size))
        elif data:
            if self._left is not None:
                self._left -= len(data)
            self._request.stream(frames.DATA, data)
            self._go_on()
        else:
            self._finish()

    def _fail(self, refusal: Refusal) -> None:
        self._close()
        self._request.refuse(refusal)

    def _finish(self) -> None:
        self._close()
        self._request.end_stream()
        mode = stat.S_IMODE(self._found.st_mode)
        self._request.respond({"size": self._sent, "mode": mode, "mtime": self._found.st_mtime})


def write(guest: Guest, request: Request, fields: Fields) -> None:
    """Take a file."""
    path = normal(guest, fields.path("path"))
    mode = fields.integer("mode", None, high=0o7777)
    append = fields.flag("append", False)
    parents = fields.flag("parents", True)
    max_size = fields.integer("max_size", None)
    fields.finish()
    try:
        if parents:
            os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise file_failed(error, path) from error
    if append:
        fd, _ = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode or _DEFAULT_MODE)
        request.activity = _Writing(path, fd, None, mode, max_size)
    else:
        # Through a link to what it names, as every program writes.
        target = os.path.realpath(path)
        old_mode = _mode_of_old(target)
        fd, unfinished = _open_beside(target, request.number)
        kept = mode if mode is not None else old_mode
        request.activity = _Writing(target, fd, unfinished, kept, max_size)


def _mode_of_old(target: str) -> int:
    """Return the mode that the new file inherits; Refusal if it cannot take the old one's place."""
    if not os.path.lexists(target):
        return _DEFAULT_MODE
    fd, found = open_regular(target, os.O_WRONLY)
    os.close(fd)
    return stat.S_IMODE(found.st_mode)


def _open_beside(target: str, number: int) -> tuple[int, str]:
    unfinished = beside(target, number)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(unfinished, flags | os.O_CLOEXEC, 0o600), unfinished
    except OSError as error:
        raise file_failed(error, target) from error


class _Writing(Activity):
    """A file on its way in."""

    def __init__(
        self, path: str, fd: int, unfinished: str | None, mode: int | None, max_size: int | None
    ) -> None:
        self._path = path
        self._fd = fd
        self._unfinished = unfinished
        self._mode = mode
        self._max_size = max_size
        self._size = 0

    def data(self, request: Request, payload: bytes) -> None:
        """Write the next piece."""
        self._size += len(payload)
        if self._max_size is not None and self._size > self._max_size:
            self._give_up()
            request.refuse(_too_large(self._path, self._max_size))
            return
        try:
            left = payload
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._give_up()
            request.refuse(file_failed(error, self._path))
            return
        request.consumed(len(payload))

    def eof(self, request: Request) -> None:
        """Put the file in its place."""
        try:
            if self._mode is not None:
                os.fchmod(self._fd, self._mode)
            if self._unfinished is not None:
                os.rename(self._unfinished, self._path)
                self._unfinished = None
        except OSError as error:
            self._give_up()
            request.refuse(file_failed(error, self._path))
            return
        self._give_up()
        request.respond({"size": self._size})

    def cancel(self, request: Request) -> None:
        """Leave the target as it was."""
        self._give_up()
        super().cancel(request)

    def _give_up(self) -> None:
        """Close; remove what is not finished.  Invariant X2."""
        os.close(self._fd)
        if self._unfinished is not None:
            try:
                os.unlink(self._unfinished)
            except OSError:
                pass  # the tenant may have removed it, or its directory
