"""A strict reader of plain tar archives: pure, bounded, made for hostile input.

The standard library's reader holds memory for what headers claim, follows negative sizes backwards
and searches headers in quadratic time (in the releases we support), so it is not used for reading.

Read are files, directories and hard links to earlier members, in ustar, GNU and pax form.  Symbolic
links, devices, pipes, sparse files, absolute names and names with `..` refuse the whole archive.
Compressed archives are not read: a member can then not be larger than the bytes in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from sandpool.errors import FileTooLarge, InvalidSpec

MAX_MEMBERS = 100_000
"""Members of one archive, at most."""

MAX_ARCHIVE = 1024**3
"""Bytes of one archive, packed or unpacked, at most."""

MAX_HEADER = 64 * 1024
"""Bytes of one extended header (a long name, pax), at most."""

MAX_DEPTH = 128
"""Directories above a member, at most."""

_PATH_MAX = 4096
_BLOCK = 512
_END = bytes(_BLOCK)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")

_FILE_TYPES = (b"0", b"\0", b"7")
_DIR_TYPE = b"5"
_HARD_LINK_TYPE = b"1"
_LONG_NAME_TYPE = b"L"
_LONG_LINK_TYPE = b"K"
_PAX_TYPE = b"x"
_PAX_GLOBAL_TYPE = b"g"
_EXTENDED_TYPES = (_LONG_NAME_TYPE, _LONG_LINK_TYPE, _PAX_TYPE, _PAX_GLOBAL_TYPE)


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


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    link: str
    kind: bytes
    mode: int
    start: int
    size: int


def read_members(data: bytes) -> list[Member]:
    """Return the members of a tar archive in order, or refuse all of it.

    Raises `InvalidSpec` or `FileTooLarge`.
    """
    if len(data) > MAX_ARCHIVE:
        raise FileTooLarge(f"the archive has {len(data)} bytes; at most {MAX_ARCHIVE} are allowed")
    if data.startswith(_COMPRESSED):
        raise InvalidSpec("the archive is compressed; only plain tar is read")
    if not data:
        _malformed("it is empty")
    found: dict[str, Member] = {}
    total = 0
    for header in _headers(data):
        member = _member(header, found)
        _refuse_conflict(member, found)
        found[member.name] = member
        total += member.size
        if len(found) > MAX_MEMBERS:
            raise FileTooLarge(f"the archive has more than {MAX_MEMBERS} members")
        if total > MAX_ARCHIVE:
            raise FileTooLarge(f"the archive unpacks to more than {MAX_ARCHIVE} bytes")
    return list(found.values())


def _headers(data: bytes) -> Iterator[_Header]:
    """Iterate over the members' headers, with extended headers already applied."""
    at = 0
    everywhere: dict[str, str] = {}
    once: dict[str, str] = {}
    while at < len(data) and data[at : at + _BLOCK] != _END[: len(data) - at]:
        header = _header(data, at)
        if header.kind in _EXTENDED_TYPES:
            extended = _extended(header, data)
            (everywhere if header.kind == _PAX_GLOBAL_TYPE else once).update(extended)
            at = _after(header.start, header.size)
            continue
        header = _with_extended(header, {**everywhere, **once})
        once = {}
        if header.start + header.size > len(data):
            _malformed(f"it ends within member {header.name!r}")
        yield header
        at = _after(header.start, header.size)


def _header(data: bytes, at: int) -> _Header:
    block = data[at : at + _BLOCK]
    if len(block) < _BLOCK:
        _malformed("it ends within a header")
    claimed = _number(block[148:156])
    if claimed != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        _malformed("a header has a wrong checksum")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    kind = block[156:157]
    size = _number(block[124:136])
    if kind in (_DIR_TYPE, _HARD_LINK_TYPE):
        size = 0
    return _Header(name, _text(block[157:257]), kind, _number(block[100:108]), at + _BLOCK, size)


def _extended(header: _Header, data: bytes) -> dict[str, str]:
    if header.size > MAX_HEADER:
        _malformed("an extended header is too long")
    body = data[header.start : header.start + header.size]
    if len(body) < header.size:
        _malformed("it ends within an extended header")
    if header.kind == _LONG_NAME_TYPE:
        return {"path": _text(body)}
    if header.kind == _LONG_LINK_TYPE:
        return {"linkpath": _text(body)}
    return dict(_pax_records(body))


def _pax_records(body: bytes) -> Iterator[tuple[str, str]]:
    """Iterate over records: a length that counts all of it, a space, `KEY=VALUE`, a newline."""
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 8)
        length = body[at:space] if space > 0 else b""
        if not length.isdigit():
            _malformed("a pax record has no length")
        end = at + int(length)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end > len(body) or end <= space or body[end - 1 : end] != b"\n" or not equals:
            _malformed("a pax record is broken")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at = end


def _with_extended(header: _Header, extended: Mapping[str, str]) -> _Header:
    if any(key.startswith("GNU.sparse.") for key in extended):
        raise InvalidSpec(f"archive member {header.name!r} is sparse; sparse files are refused")
    size = header.size
    if "size" in extended and header.kind in _FILE_TYPES:
        digits = extended["size"]
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            _malformed("a pax size is not a number")
        size = int(digits)
    return _Header(
        extended.get("path", header.name),
        extended.get("linkpath", header.link),
        header.kind,
        header.mode,
        header.start,
        size,
    )


def _member(header: _Header, found: Mapping[str, Member]) -> Member:
    name = _safe_name(header.name)
    if header.kind == _DIR_TYPE or (header.kind == b"\0" and header.name.endswith("/")):
        return Member(name, is_dir=True, mode=0o755)
    if not name:
        raise InvalidSpec(f"archive member {header.name!r} has no name")
    if header.kind == _HARD_LINK_TYPE:
        # A second name for a member that came before it: a copy of the same bytes.
        first = found.get(_safe_name(header.link))
        if first is None or first.is_dir:
            raise InvalidSpec(f"archive member {header.name!r} links to what is not in the archive")
        return Member(name, is_dir=False, mode=first.mode, start=first.start, size=first.size)
    if header.kind not in _FILE_TYPES:
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


def _number(text: bytes) -> int:
    if text[0] & 0x80:  # base 256, for what octal digits have no room for
        value = int.from_bytes(text, "big") - (0x80 << (8 * (len(text) - 1)))
        if text[0] != 0x80 or value >= 1 << 63:
            _malformed("a header has an impossible number")
        return value
    digits = text.strip(b" \0")
    if digits.strip(b"01234567"):
        _malformed("a header has a number that is not octal")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _after(start: int, size: int) -> int:
    return start + -(-size // _BLOCK) * _BLOCK


def _malformed(why: str) -> NoReturn:
    raise InvalidSpec(f"not a tar archive that can be read: {why}")
