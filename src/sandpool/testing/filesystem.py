"""Files in memory, with the errors of a real kernel.

No links, no owners, no permission checks: what `FakeBox` needs and no more.
"""

from __future__ import annotations

import errno
import os
import posixpath
from dataclasses import dataclass, field
from typing import Literal

from sandpool.errors import FileFailed, file_error
from sandpool.models import DirEntry


@dataclass(slots=True)
class _Node:
    mtime: float
    mode: int
    data: bytes | None = None
    """A file's bytes; None for a directory."""

    @property
    def kind(self) -> Literal["file", "directory"]:
        return "directory" if self.data is None else "file"


def _failed(code: int, path: str) -> FileFailed:
    return file_error(code, os.strerror(code), path)


@dataclass(slots=True)
class MemoryFiles:
    """One tree of files and directories, addressed by absolute, normal paths."""

    capacity: int
    """Bytes that all files together may have; past it: ENOSPC."""
    _nodes: dict[str, _Node] = field(default_factory=lambda: {"/": _Node(0.0, 0o755)})

    def resolve(self, path: str, cwd: str) -> str:
        """Make `path` absolute and normal; an empty one and NUL bytes are refused."""
        if not path or "\0" in path:
            raise _failed(errno.ENOENT if not path else errno.EINVAL, path)
        normal = posixpath.normpath(posixpath.join(cwd, path))
        return normal.replace("//", "/", 1) if normal.startswith("//") else normal

    def exists(self, path: str) -> bool:
        """Whether there is something at `path`."""
        return path in self._nodes

    def is_dir(self, path: str) -> bool:
        """Whether `path` is a directory."""
        node = self._nodes.get(path)
        return node is not None and node.data is None

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        data = self._find(path).data
        if data is None:
            raise _failed(errno.EISDIR, path)
        return data

    def write(
        self, path: str, data: bytes, *, now: float, mode: int | None = None, append: bool = False
    ) -> None:
        """Write a file, whole or not at all."""
        node = self._nodes.get(path)
        if node is not None and node.data is None:
            raise _failed(errno.EISDIR, path)
        self._need_parent(path)
        old = node.data if node is not None and node.data is not None else b""
        new = old + data if append else data
        if self._used() - len(old) + len(new) > self.capacity:
            raise _failed(errno.ENOSPC, path)
        if mode is None:
            mode = node.mode if node is not None else 0o644
        self._nodes[path] = _Node(now, mode, new)

    def mkdir(self, path: str, *, now: float, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a directory."""
        node = self._nodes.get(path)
        if node is not None:
            if node.data is None and exist_ok:
                return
            raise _failed(errno.EEXIST, path)
        above = posixpath.dirname(path)
        if parents and above not in self._nodes:
            self.mkdir(above, now=now)
        self._need_parent(path)
        self._nodes[path] = _Node(now, 0o755)

    def stat(self, path: str) -> DirEntry:
        """Describe one path."""
        node = self._find(path)
        return DirEntry(
            name=posixpath.basename(path) or "/",
            path=path,
            type=node.kind,
            size=len(node.data or b""),
            mode=node.mode,
            mtime=node.mtime,
        )

    def list(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        """List a directory, `depth` levels deep, sorted by path."""
        if self._find(path).data is not None:
            raise _failed(errno.ENOTDIR, path)
        prefix = path if path == "/" else path + "/"
        found = [
            other
            for other in self._nodes
            if other != path
            and other.startswith(prefix)
            and other[len(prefix) :].count("/") < depth
        ]
        return [self.stat(other) for other in sorted(found)]

    def move(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Rename a file or a tree."""
        self._find(source)
        if target in self._nodes:
            if not overwrite:
                raise _failed(errno.EEXIST, target)
            if self.is_dir(target):
                raise _failed(errno.EISDIR, target)
        if target.startswith(source + "/"):
            raise _failed(errno.EINVAL, target)
        self._need_parent(target)
        for path in [p for p in self._nodes if p == source or p.startswith(source + "/")]:
            self._nodes[target + path[len(source) :]] = self._nodes.pop(path)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or with `recursive` a tree."""
        node = self._find(path)
        below = [other for other in self._nodes if other.startswith(path.rstrip("/") + "/")]
        if node.data is None and not recursive:
            raise _failed(errno.EISDIR, path)
        for other in [*below, path]:
            self._nodes.pop(other, None)

    def _find(self, path: str) -> _Node:
        node = self._nodes.get(path)
        if node is None:
            above: str = posixpath.dirname(path)
            while above not in self._nodes:
                above = posixpath.dirname(above)
            code = errno.ENOENT if self.is_dir(above) else errno.ENOTDIR
            raise _failed(code, path)
        return node

    def _need_parent(self, path: str) -> None:
        if self._find(posixpath.dirname(path)).data is not None:
            raise _failed(errno.ENOTDIR, path)

    def _used(self) -> int:
        return sum(len(node.data) for node in self._nodes.values() if node.data is not None)
