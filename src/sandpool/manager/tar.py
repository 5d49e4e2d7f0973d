"""Which tar archives may be unpacked into a sandbox: pure, bounded, made for hostile input.

Read are files, directories and hard links to earlier members, in ustar, GNU and pax form.  Symbolic
links, devices, pipes, sparse files, absolute names and names with `..` refuse the whole archive.
Compressed archives are not read: a member can then not be larger than the bytes in hand.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from sandpool.errors import FileTooLarge, InvalidSpec
from sandpool.tar import HARD_LINK, Header, TarReader, malformed

MAX_MEMBERS = 100_000
"""Members of one archive, at most."""

MAX_ARCHIVE = 1024**3
"""Bytes of one archive, packed or unpacked, at most."""

MAX_DEPTH = 128
"""Directories above a member, at most."""

_PATH_MAX = 4096
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Member:
    """One file or directory of an archive that has been found good."""

    name: str
    """Relative and normal; empty for the target directory itself."""
    is_dir: bool
    mode: int
    start: int = 0
    size: int = 0
    """Where a file's bytes are in the archive."""


def read_members(data: bytes) -> list[Member]:
    """Return the members of a tar archive in order, or refuse all of it.

    Raises `InvalidSpec` or `FileTooLarge`.
    """
    if len(data) > MAX_ARCHIVE:
        raise FileTooLarge(f"the archive has {len(data)} bytes; at most {MAX_ARCHIVE} are allowed")
    if data.startswith(_COMPRESSED):
        raise InvalidSpec("the archive is compressed; only plain tar is read")
    if not data:
        malformed("it is empty")
    found: dict[str, Member] = {}
    total = 0
    for header in TarReader(io.BytesIO(data)):
        if header.start + header.size > len(data):
            malformed(f"it ends within member {header.name!r}")
        member = _member(header, found)
        _refuse_conflict(member, found)
        found[member.name] = member
        total += member.size
        if len(found) > MAX_MEMBERS:
            raise FileTooLarge(f"the archive has more than {MAX_MEMBERS} members")
        if total > MAX_ARCHIVE:
            raise FileTooLarge(f"the archive unpacks to more than {MAX_ARCHIVE} bytes")
    return list(found.values())


def _member(header: Header, found: Mapping[str, Member]) -> Member:
    name = _safe_name(header.name)
    if header.is_dir:
        return Member(name, is_dir=True, mode=0o755)
    if not name or header.name.endswith("/."):
        # `a/.` is the directory `a`: who took it for a file would find what no other reader does.
        raise InvalidSpec(f"archive member {header.name!r} has no name")
    if header.kind == HARD_LINK:
        # A second name for a member that came before it: a copy of the same bytes.
        first = found.get(_safe_name(header.link))
        if first is None or first.is_dir:
            raise InvalidSpec(f"archive member {header.name!r} links to what is not in the archive")
        return Member(name, is_dir=False, mode=first.mode, start=first.start, size=first.size)
    if not header.is_file:
        raise InvalidSpec(
            f"archive member {header.name!r} is neither a plain file nor a directory "
            "(symbolic links, devices, pipes and sparse files are refused)"
        )
    mode = header.mode & 0o777 | 0o600
    return Member(name, is_dir=False, mode=mode, start=header.start, size=header.size)


def _safe_name(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise InvalidSpec(f"archive member {name!r} leads outside the target directory")
    parts = [part for part in parts if part not in ("", ".")]
    if len(parts) > MAX_DEPTH or len(name) > _PATH_MAX:
        raise InvalidSpec(f"archive member {name[:80]!r}... is too deep or too long")
    return "/".join(parts)


def _refuse_conflict(member: Member, found: Mapping[str, Member]) -> None:
    above = member.name
    while "/" in above:
        above = above.rpartition("/")[0]
        other = found.get(above)
        if other is not None and not other.is_dir:
            raise InvalidSpec(f"archive member {member.name!r} is below a file")
    same = found.get(member.name)
    if same is not None and same.is_dir != member.is_dir:
        raise InvalidSpec(f"archive member {member.name!r} is both a file and a directory")
