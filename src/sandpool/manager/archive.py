"""Tar archives into and out of a sandbox.

An archive is untrusted.  It is read completely before the first byte is written: one bad member
refuses all of it.  What is written goes through the sandbox's own file operations, so that whatever
an archive says, it can only ever change files inside that sandbox.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread

from sandpool.errors import FileTooLarge, GuestError, InvalidSpec
from sandpool.manager.tar import MAX_ARCHIVE, MAX_DEPTH, read_members
from sandpool.models import DirEntry

_CHUNK = 64 * 1024
_LATEST = 1 << 33
_IN_THREAD = 1024 * 1024
"""Archives from this size on are read in a worker thread, so that the event loop goes on."""


class Target(Protocol):
    """The part of a `Box` that unpacking needs."""

    async def make_dir(self, path: str, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a directory."""
        ...

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        mode: int | None = None,
        append: bool = False,
        parents: bool = True,
    ) -> int:
        """Write a file."""
        ...


class Source(Protocol):
    """The part of a `Box` that packing needs."""

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        """Describe one path."""
        ...

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        """List a directory."""
        ...

    def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a file."""
        ...


async def unpack(target: Target, target_dir: str, data: bytes) -> None:
    """Unpack a tar archive below `target_dir`, which is made if it is absent.

    Raises `InvalidSpec` for an archive that is malformed or has a member that is absolute, leads
    outside, or is neither a file nor a directory; `FileTooLarge` past the limits.  Then nothing has
    been written.
    """
    if len(data) >= _IN_THREAD:
        members = await anyio.to_thread.run_sync(read_members, data)
    else:
        members = read_members(data)
    base = target_dir.rstrip("/") or "/"
    await target.make_dir(base)
    view = memoryview(data)
    for member in members:
        path = f"{base.rstrip('/')}/{member.name}" if member.name else base
        if member.is_dir:
            await target.make_dir(path)
        else:
            content = view[member.start : member.start + member.size]
            await target.write_file(path, _chunks(content), mode=member.mode)


async def _chunks(content: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _CHUNK):
        yield bytes(content[start : start + _CHUNK])


async def pack(source: Source, path: str, *, max_size: int = MAX_ARCHIVE) -> bytes:
    """Return a tar archive of a file or a tree, its names beginning with the last part of `path`.

    Raises `FileTooLarge` once the archive would pass `max_size` bytes, and `GuestError` when the
    guest names a path that does not lie there: who unpacks the archive must not be led astray.
    """
    root = await source.stat_file(path)
    entries = [root]
    if root.type == "directory":
        entries += await source.list_files(path, depth=MAX_DEPTH)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            # The guest's answers are untrusted: sizes are counted here, not believed.
            info = _info(entry, _name(entry, root))
            content = b""
            if entry.type == "file":
                room = max_size - packed.tell()
                content = await _read(source, entry.path, room)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
            if packed.tell() > max_size:
                raise FileTooLarge(f"the archive of {path} has more than {max_size} bytes")
    return packed.getvalue()


def _name(entry: DirEntry, root: DirEntry) -> str:
    """Return what the archive calls `entry`, found below `root`."""
    top = root.path.rstrip("/")
    is_below = entry.path == root.path or entry.path.startswith(top + "/")
    name = entry.path.removeprefix(top.rpartition("/")[0]).removeprefix("/")
    parts = name.split("/") if name else []
    if not is_below or not root.path.startswith("/") or "\0" in name:
        raise GuestError(f"the guest listed {entry.path!r:.200}, which is not below {root.path!r}")
    if any(part in ("", ".", "..") for part in parts):
        raise GuestError(f"the guest listed {entry.path!r:.200}, which is no path")
    return name or "."


async def _read(source: Source, path: str, room: int) -> bytes:
    content = bytearray()
    async for piece in source.read_file(path, length=max(room, 0) + 1):
        content += piece
        if len(content) > room:
            raise FileTooLarge(f"{path} has more bytes than the archive has room for")
    return bytes(content)


def _info(entry: DirEntry, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = entry.mode & 0o777
    # What is not a time that the format can write, infinity and NaN included, becomes the epoch.
    info.mtime = int(entry.mtime) if 0 <= entry.mtime < _LATEST else 0
    if entry.type == "directory":
        info.type = tarfile.DIRTYPE
    elif entry.type == "symlink":
        info.type, info.linkname = tarfile.SYMTYPE, entry.target or ""
    return info


@dataclass(frozen=True, slots=True)
class LocalEntry:
    """One directory or plain file of this machine that is to be copied."""

    path: Path
    name: str
    """Relative to the directory that is copied."""
    is_dir: bool
    mode: int


def walk(source_dir: str | Path) -> list[LocalEntry]:
    """List what `put_dir` copies: directories and plain files; links and all else are left out.

    Raises `FileNotFoundError` if `source_dir` is not a directory.
    """
    root = Path(source_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{source_dir} is not a directory")
    return list(_walk(root, ""))


def _walk(directory: Path, prefix: str) -> Iterator[LocalEntry]:
    for path in sorted(directory.iterdir()):
        if path.is_symlink():
            continue
        name = prefix + path.name
        if path.is_dir():
            yield LocalEntry(path, name, is_dir=True, mode=0o755)
            yield from _walk(path, name + "/")
        elif path.is_file():
            yield LocalEntry(path, name, is_dir=False, mode=path.stat().st_mode & 0o777 | 0o600)


async def copy_dir(target: Target, source_dir: str | Path, target_dir: str) -> None:
    """Copy the contents of a directory of this machine to `target_dir`."""
    entries = await anyio.to_thread.run_sync(walk, source_dir)
    base = target_dir.rstrip("/")
    await target.make_dir(base or "/")
    for entry in entries:
        path = f"{base}/{entry.name}"
        if entry.is_dir:
            await target.make_dir(path)
        else:
            await target.write_file(path, _local_chunks(entry.path), mode=entry.mode)


async def _local_chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_CHUNK):
            yield piece


def pack_dir(source_dir: str | Path) -> bytes:
    """Return a tar archive of what `walk` lists, for sandboxes that take only archives."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for entry in walk(source_dir):
            archive.add(entry.path, entry.name, recursive=False, filter=_anonymous)
            if packed.tell() > MAX_ARCHIVE:
                raise FileTooLarge(f"{source_dir} has more than {MAX_ARCHIVE} bytes")
    return packed.getvalue()


def pack_file(name: str, content: bytes) -> bytes:
    """Return a tar archive of one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def split_file_path(file_path: str) -> tuple[str, str]:
    """Return directory and name of an absolute path to a file, or raise `InvalidSpec`."""
    directory, _, name = file_path.rpartition("/")
    if not file_path.startswith("/") or name in ("", ".", ".."):
        raise InvalidSpec(f"file_path must be absolute and end in a file name, not {file_path!r}")
    return directory or "/", name


def check_target_dir(target_dir: Any) -> str:
    """Refuse an empty target directory."""
    if not isinstance(target_dir, str) or not target_dir.strip():
        raise InvalidSpec("target_dir must not be empty")
    return target_dir
