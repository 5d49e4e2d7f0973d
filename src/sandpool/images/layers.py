"""What the members of a layer ask for: pure rules, apart from the disk that they change.

A layer is a tar of changes to what lies below it.  A member whose name begins with `.wh.` takes
something away: `.wh.NAME` takes NAME, `.wh..wh..opq` all that lower layers have in its directory.
Both concern lower layers only, wherever in the tar they stand.

    L1  A name has no part that is `..`, and none that is empty or `.` once it has been read.
    L2  What an image may not bring at all refuses the layer, and with it the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sandpool.errors import ImageRefused
from sandpool.tar import HARD_LINK, SYMBOLIC_LINK, Header

Path = tuple[str, ...]
"""The parts of a name below the root; empty for the root itself."""

MAX_DEPTH = 128
"""Parts of a name, at most; with links followed, twice as many."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_RESERVED = ".wh..wh."
_PATH_MAX = 4096
_NAME_MAX = 255
_LATEST = 1 << 33
_DEVICES = {b"3": "a character device", b"4": "a block device", b"6": "a pipe"}

_FILE_MODE = 0o777
"""No set-user-id, set-group-id or sticky file comes out of an image."""
_DIR_MODE = 0o1777


class Action(Enum):
    """What a member does."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMBOLIC_LINK = "symbolic link"
    HARD_LINK = "hard link"
    REMOVE = "remove"
    """Take away what lower layers have at the path."""
    CLEAR = "clear"
    """Take away what lower layers have below the path."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Change:
    """One member, found good as far as its own text goes."""

    action: Action
    path: Path
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    """The text of a symbolic link."""
    source: Path = ()
    """What a hard link is a second name of."""


def read_change(header: Header) -> Change:
    """Return what a member asks for; `ImageRefused` (invariants L1 and L2)."""
    path = read_path(header.name)
    name = path[-1] if path else ""
    if name.startswith(_WHITEOUT):
        return _whiteout(header, path)
    if not path and not header.is_dir:
        raise _refusal(header, "stands for the root, and is no directory")
    mtime = min(max(header.mtime, 0), _LATEST)
    owner = (header.uid, header.gid, mtime)
    if header.is_dir:
        return Change(Action.DIRECTORY, path, header.mode & _DIR_MODE, *owner)
    if header.is_file:
        return Change(Action.FILE, path, header.mode & _FILE_MODE, *owner, size=header.size)
    if header.kind == SYMBOLIC_LINK:
        if not header.link or "\0" in header.link or len(header.link) >= _PATH_MAX:
            raise _refusal(header, "is a symbolic link to nothing, or to too long a name")
        return Change(Action.SYMBOLIC_LINK, path, 0, *owner, link=header.link)
    if header.kind == HARD_LINK:
        # Some archives write what a hard link is to with the root's slash.
        source = read_path(header.link.lstrip("/"))
        if not source:
            raise _refusal(header, "is a hard link to nothing")
        return Change(Action.HARD_LINK, path, source=source)
    what = _DEVICES.get(header.kind, "of a kind that is none of a file system's")
    raise _refusal(
        header,
        f"is {what}, which no image may bring; leave it out (a tar of a root file system: "
        "--exclude='./dev/*')",
    )


def read_path(name: str) -> Path:
    """Return the parts of a member's name; `ImageRefused` (invariant L1)."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ImageRefused(f"layer member {name[:200]!r} leads outside the image")
    found = tuple(part for part in parts if part not in ("", "."))
    if len(found) > MAX_DEPTH or len(name) >= _PATH_MAX:
        raise ImageRefused(f"layer member {name[:80]!r}... is too deep or too long")
    for part in found:
        if len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX:
            raise ImageRefused(f"layer member {name[:80]!r}... has too long a part")
    return found


def _whiteout(header: Header, path: Path) -> Change:
    *above, name = path
    if name == _OPAQUE:
        return Change(Action.CLEAR, tuple(above))
    if name.startswith(_RESERVED):
        return Change(Action.NOTHING, ())  # what the oldest storage drivers left for themselves
    hidden = name.removeprefix(_WHITEOUT)
    if hidden in ("", ".", ".."):
        raise _refusal(header, "takes away nothing that has a name")
    return Change(Action.REMOVE, (*above, hidden))


def _refusal(header: Header, why: str) -> ImageRefused:
    return ImageRefused(f"layer member {header.name[:200]!r} {why}")
