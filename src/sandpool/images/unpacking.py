"""Applies a layer to a directory, following nothing that leads out of it.

Every step of every path is opened from the one before it, without following links; a link among
them is read and followed by us, with the directory as its root.  A file that is there is replaced
and never written to: by hard links it may be a file of other images as well.

    U1  `_own` holds what this layer has brought, and the directories above it; what takes away
        lower layers' files leaves it alone, in whichever order the two come.
    U2  Nothing outside the root is opened, but for the root itself.
    U3  `_latest` is a directory that is there: what removes others than its entries forgets it.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from sandpool.errors import ImageRefused
from sandpool.images.layers import MAX_DEPTH, Action, Change, Path, read_change
from sandpool.tar import Stream, TarReader

_CHUNK = 256 * 1024
_MAX_LINKS = 40
"""Links on the way of one path, as the kernel has it."""
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPLIED_MODE = 0o755
_OWN_RIGHTS = 0o700
"""What we keep on every directory, so that an ordinary user can go on below it, and remove it."""


@dataclass(slots=True)
class Budget:
    """What one image may still bring; shared by all of its layers."""

    members: int
    bytes: int

    def take(self, size: int) -> None:
        """Count one member; `ImageRefused` past the bounds."""
        self.members -= 1
        self.bytes -= size
        if self.members < 0:
            raise ImageRefused("the image has more files than it may have")
        if self.bytes < 0:
            raise ImageRefused("the image unpacks to more bytes than it may have")


@dataclass(slots=True)
class _Brought:
    """Something of this layer, and what of it is below."""

    below: dict[str, _Brought] = field(default_factory=dict[str, "_Brought"])
    mtime: int | None = None
    """When a directory that it brings was last changed; set when all is in it."""
    is_cleared: bool = False
    """Whether nothing of lower layers is below it any more: looking again and again for that would
    let a short layer cost hours."""


class _Way:
    """The directories from the root down to one, all of them open: `..` goes back, and not up."""

    def __init__(self, root: int) -> None:
        self._steps = [("", root)]

    @property
    def place(self) -> Path:
        return tuple(part for part, _ in self._steps[1:])

    @property
    def fd(self) -> int:
        return self._steps[-1][1]

    def down(self, part: str, fd: int) -> None:
        self._steps.append((part, fd))

    def up(self) -> None:
        if len(self._steps) > 1:
            os.close(self._steps.pop()[1])

    def back(self) -> None:
        while len(self._steps) > 1:
            self.up()

    def close(self) -> None:
        for _, fd in self._steps:
            os.close(fd)


@dataclass(slots=True)
class Unpacking:
    """One layer's application to the directory `root`, open and nobody else's to change."""

    root: int
    budget: Budget
    keeps_ids: bool
    """Whether files keep their owners; else all are ours."""
    _own: _Brought = field(default_factory=_Brought)
    _latest: tuple[Path, Path, int] | None = None
    """The directory that was last worked in: as it was named, as it is, and open."""

    def apply(self, stream: Stream) -> None:
        """Apply all of a tar; `ImageRefused`, `InvalidSpec` (no tar), or OSError of the disk."""
        reader = TarReader(stream)
        try:
            for header in reader:
                change = read_change(header)
                self.budget.take(change.size)
                self._apply(change, reader)
            _set_times(self.root, self._own)
        finally:
            self._forget()

    def _apply(self, change: Change, reader: TarReader) -> None:
        if change.action is Action.NOTHING:
            return
        if change.action is Action.CLEAR:
            self._clear(change.path)
            return
        if not change.path:
            return  # the root itself: it is ours, and as every root is
        place, directory = self._enter(change.path[:-1])
        path = (*place, change.path[-1])
        if change.action is Action.REMOVE:
            self._remove(directory, path[-1], self._claim(place))
            return
        name = path[-1]
        if change.action is Action.HARD_LINK:
            self._link(change, directory, path)
        elif change.action is Action.DIRECTORY:
            self._make_directory(change, directory, path)
        else:
            self._replace(directory, path)
            if change.action is Action.FILE:
                self._make_file(change, directory, name, reader)
            else:
                os.symlink(change.link, name, dir_fd=directory)
                self._give(change, name, directory)
            self._claim(path)

    # The parts of paths.

    def _enter(self, named: Path) -> tuple[Path, int]:
        """Return the directory of this name, as it is and open; it is made if it is not there."""
        if self._latest is None or self._latest[0] != named:
            place, fd = self._walk(named, make=True)
            self._forget()
            self._latest = (named, place, fd)
        return self._latest[1], self._latest[2]

    def _forget(self) -> None:
        if self._latest is not None:
            os.close(self._latest[2])
            self._latest = None

    def _walk(self, named: Path, *, make: bool) -> tuple[Path, int]:
        """Open the directory that a name leads to, links followed below the root.

        Raises `ImageRefused` where there is none, or (with `make`) where something else is in the
        way of making it.
        """
        way = _Way(os.open(".", _OPEN_DIR, dir_fd=self.root))
        left = list(reversed(named))
        links = 0
        try:
            while left:
                part = left.pop()
                if part == "..":
                    way.up()
                elif part not in ("", "."):
                    target = _read_link(part, way.fd)
                    if target is None:
                        way.down(part, self._step(part, way.fd, named, make=make))
                        _check_way(way, links, named)
                        continue
                    links += 1
                    _check_way(way, links, named)
                    if target.startswith("/"):
                        way.back()
                    left += reversed(target.split("/"))
            return way.place, os.dup(way.fd)
        finally:
            way.close()

    def _step(self, part: str, directory: int, named: Path, *, make: bool) -> int:
        try:
            return os.open(part, _OPEN_DIR, dir_fd=directory)
        except FileNotFoundError:
            if not make:
                raise ImageRefused(f"layer member {_show(named)}: there is no such place") from None
        except NotADirectoryError:
            raise ImageRefused(f"layer member {_show(named)} is below a file") from None
        os.mkdir(part, _IMPLIED_MODE, dir_fd=directory)
        fd = os.open(part, _OPEN_DIR, dir_fd=directory)
        os.fchmod(fd, _IMPLIED_MODE)
        return fd

    # What changes something.

    def _make_directory(self, change: Change, directory: int, path: Path) -> None:
        name = path[-1]
        found = _mode(name, directory)
        if found is not None and not stat.S_ISDIR(found):
            self._replace(directory, path)
            found = None
        if found is None:
            os.mkdir(name, _OWN_RIGHTS, dir_fd=directory)
        fd = os.open(name, _OPEN_DIR, dir_fd=directory)
        try:
            if self.keeps_ids:
                os.fchown(fd, change.uid, change.gid)
            os.fchmod(fd, change.mode | _OWN_RIGHTS)
        finally:
            os.close(fd)
        self._claim(path).mtime = change.mtime

    def _make_file(self, change: Change, directory: int, name: str, reader: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            while data := reader.read(_CHUNK):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            if self.keeps_ids:
                os.fchown(fd, change.uid, change.gid)
            os.fchmod(fd, change.mode)
            os.utime(fd, (change.mtime, change.mtime))
        finally:
            os.close(fd)

    def _link(self, change: Change, directory: int, path: Path) -> None:
        place, fd = self._walk(change.source[:-1], make=False)
        source = (*place, change.source[-1])
        try:
            if source == path:
                return
            found = _mode(source[-1], fd)
            if found is None or stat.S_ISDIR(found):
                raise ImageRefused(
                    f"layer member {_show(path)} is a hard link to what is no file in the image"
                )
            # Removing what is there must not remove what the link is to.
            if path == source[: len(path)]:
                raise ImageRefused(f"layer member {_show(path)} would take the place of itself")
            self._replace(directory, path)
            os.link(
                source[-1], path[-1], src_dir_fd=fd, dst_dir_fd=directory, follow_symlinks=False
            )
            self._claim(path)
        except OSError as error:
            if error.errno == errno.EMLINK:
                raise ImageRefused(f"{_show(source)} has too many hard links") from error
            raise
        finally:
            os.close(fd)

    def _give(self, change: Change, name: str, directory: int) -> None:
        if self.keeps_ids:
            os.chown(name, change.uid, change.gid, dir_fd=directory, follow_symlinks=False)
        times = (change.mtime, change.mtime)
        os.utime(name, times, dir_fd=directory, follow_symlinks=False)

    def _replace(self, directory: int, path: Path) -> None:
        """Make room at a path, whoever has brought what is there."""
        found = _mode(path[-1], directory)
        if found is None:
            return
        if stat.S_ISDIR(found):
            self._claim(path[:-1]).below.pop(path[-1], None)
        remove_tree(path[-1], directory)

    def _clear(self, named: Path) -> None:
        self._forget()  # invariant U3
        place, fd = self._walk(named, make=True)
        try:
            self._remove_children(fd, self._claim(place))
        finally:
            os.close(fd)

    def _remove(self, directory: int, name: str, above: _Brought) -> None:
        """Take away what lower layers have at a path (invariant U1)."""
        own = above.below.get(name)
        if own is None:
            if _mode(name, directory) is not None:
                remove_tree(name, directory)
            return
        try:
            fd = os.open(name, _OPEN_DIR, dir_fd=directory)
        except NotADirectoryError:
            return
        try:
            self._remove_children(fd, own)
        finally:
            os.close(fd)

    def _remove_children(self, fd: int, own: _Brought) -> None:
        if not own.is_cleared:
            own.is_cleared = True
            for name in os.listdir(fd):
                self._remove(fd, name, own)

    def _claim(self, path: Path) -> _Brought:
        """Return what is noted of a path of this layer."""
        found = self._own
        for part in path:
            found = found.below.setdefault(part, _Brought())
        return found


def _set_times(directory: int, own: _Brought) -> None:
    for name, brought in own.below.items():
        if not brought.below and brought.mtime is None:
            continue
        fd = os.open(name, _OPEN_DIR, dir_fd=directory)
        try:
            _set_times(fd, brought)
            if brought.mtime is not None:
                os.utime(fd, (brought.mtime, brought.mtime))
        finally:
            os.close(fd)


def remove_tree(name: str, directory: int) -> None:
    """Remove what is there with everything below it, following no link."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        pass
    else:
        return
    fd = os.open(name, _OPEN_DIR, dir_fd=directory)
    try:
        for entry in os.listdir(fd):
            remove_tree(entry, fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def copy_tree(source: int, target: int, *, keeps_ids: bool) -> None:
    """Make a directory the same as another: directories anew, and all else by hard links."""
    with os.scandir(source) as found_entries:
        entries = list(found_entries)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.link(
                entry.name, entry.name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False
            )
            continue
        os.mkdir(entry.name, _OWN_RIGHTS, dir_fd=target)
        inner = os.open(entry.name, _OPEN_DIR, dir_fd=source)
        try:
            made = os.open(entry.name, _OPEN_DIR, dir_fd=target)
            try:
                copy_tree(inner, made, keeps_ids=keeps_ids)
                found = os.fstat(inner)
                if keeps_ids:
                    os.fchown(made, found.st_uid, found.st_gid)
                os.fchmod(made, stat.S_IMODE(found.st_mode))
                os.utime(made, ns=(found.st_mtime_ns, found.st_mtime_ns))
            finally:
                os.close(made)
        finally:
            os.close(inner)


def _check_way(way: _Way, links: int, named: Path) -> None:
    if links > _MAX_LINKS or len(way.place) > 2 * MAX_DEPTH:
        raise ImageRefused(f"layer member {_show(named)} leads nowhere, or too far")


def _read_link(name: str, directory: int) -> str | None:
    """Return the text of a symbolic link; None for anything else, or nothing."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _mode(name: str, directory: int) -> int | None:
    """Return the mode of what is there, itself and not where it leads; None for nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _show(path: Path) -> str:
    return repr("/".join(path)[:200])
