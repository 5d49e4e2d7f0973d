"""Directory trees, listed and removed a bounded number of entries at a time, however deep."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Iterator

from . import frames
from .files import entry, normal
from .refusal import Refusal, file_failed
from .removal import remove_tree
from .request import Activity
from .slicing import Slicing

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request

_AT_ONCE = 64
"""Entries in one turn of the loop."""

_DEEPEST = 1 << 20


def list_directory(guest: Guest, request: Request, fields: Fields) -> None:
    """Send one JSON entry a line for all that lies below a directory."""
    path = normal(guest, fields.path("path"))
    depth = fields.integer("depth", 1, low=1, high=_DEEPEST)
    fields.finish()
    try:
        os.close(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        first = os.scandir(path)
    except OSError as error:
        raise file_failed(error, path) from error
    _Listing(guest, request, _walk(first, depth))


def _walk(first: Iterator[os.DirEntry[str]], depth: int) -> Iterator[str]:
    """Yield every path below a directory; links are not followed, what vanishes is left out."""
    open_ones = [first]
    while open_ones:
        for found in open_ones[-1]:
            yield found.path
            if len(open_ones) < depth and found.is_dir(follow_symlinks=False):
                try:
                    open_ones.append(os.scandir(found.path))
                except OSError:
                    continue  # not the tenant's to read, or gone
                break
        else:
            open_ones.pop()


class _Listing(Activity):
    """A listing on its way out."""

    def __init__(self, guest: Guest, request: Request, paths: Iterator[str]) -> None:
        self._guest = guest
        self._request = request
        self._paths = paths
        self._count = 0
        self._unsent = bytearray()
        self._is_complete = False
        self._is_going = False
        request.activity = self
        self._go_on()

    def resume(self, request: Request) -> None:
        """There is credit again."""
        self._go_on()

    def _go_on(self) -> None:
        if not self._is_going and self._request.is_open:
            self._is_going = True
            self._guest.loop.soon(self._step)

    def _step(self) -> None:
        self._is_going = False
        if not self._request.is_open:
            return
        if self._guest.connection.is_congested:
            self._guest.connection.when_clear(self._go_on)
            return
        if len(self._unsent) < frames.CHUNK and not self._is_complete:
            self._collect()
        size = min(len(self._unsent), frames.CHUNK, self._request.credit)
        if size:
            self._request.stream(frames.DATA, bytes(self._unsent[:size]))
            del self._unsent[:size]
        if self._unsent:
            if self._request.credit:
                self._go_on()
        elif self._is_complete:
            self._request.end_stream()
            self._request.respond({"count": self._count})
        else:
            self._go_on()

    def _collect(self) -> None:
        for _ in range(_AT_ONCE):
            path = next(self._paths, None)
            if path is None:
                self._is_complete = True
                return
            try:
                described = entry(path, os.lstat(path))
            except OSError:
                continue
            self._count += 1
            self._unsent += json.dumps(described, separators=(",", ":")).encode("ascii") + b"\n"


def remove(guest: Guest, request: Request, fields: Fields) -> None:
    """Remove a file, a link, or with `recursive` a directory and all below it."""
    path = normal(guest, fields.path("path"))
    recursive = fields.flag("recursive", False)
    missing_ok = fields.flag("missing_ok", False)
    fields.finish()
    try:
        os.unlink(path)
    except FileNotFoundError as error:
        if not missing_ok:
            raise file_failed(error, path) from error
    except OSError as error:
        if not os.path.isdir(path) or os.path.islink(path):
            raise file_failed(error, path) from error
        if not recursive:
            reason = "It is a directory; remove it with `recursive`"
            raise Refusal("file_failed", reason, errno=errno.EISDIR, path=path[:4096]) from error
        Slicing(guest, request, remove_tree(path), path)
        return
    request.respond({})
