"""A strict reader of tar streams, in ustar, GNU and pax form: bounded, made for hostile input.

The standard library's reader holds memory for what headers claim, follows negative sizes backwards
and searches headers in quadratic time (in the releases we support), so it is not used for reading.

What a member *is*, its reader decides: `manager/tar.py` takes plain files for a sandbox, and
`images/layers.py` what the layers of an image have.  Sparse files are refused by both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, runtime_checkable

from sandpool.errors import InvalidSpec

MAX_HEADER = 64 * 1024
"""Bytes of one extended header (a long name, pax), at most."""

MAX_EXTENDED = 16
"""Extended headers in a row, at most."""

FILE_KINDS = (b"0", b"\0", b"7")
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
DIRECTORY = b"5"

_LONG_NAME = b"L"
_LONG_LINK = b"K"
_PAX = b"x"
_PAX_GLOBAL = b"g"
_EXTENDED = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL)
_OLD_SPARSE = b"S"
_SPARSE = "GNU.sparse"
_KEYS = ("path", "linkpath", "size", "uid", "gid", "mtime", _SPARSE)

_BLOCK = 512
_END = bytes(_BLOCK)
_SKIP = 256 * 1024
_LAST_ID = (1 << 32) - 2


class Stream(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """Return some bytes, `size` at most; none at its end."""
        ...


@runtime_checkable
class Skipping(Stream, Protocol):
    """A stream that has a faster way over what nobody reads."""

    def skip(self, size: int, /) -> int:
        """Go on by so many bytes, as far as there are any; return how many."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """One member, with its extended headers applied.  Nothing in it has been found good yet."""

    name: str
    link: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    start: int
    """Where its bytes begin in the stream."""
    size: int

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory; old archives say so by the name."""
        return self.kind == DIRECTORY or (self.kind == b"\0" and self.name.endswith("/"))

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return self.kind in FILE_KINDS and not self.is_dir


class TarReader:
    """Reads the members of a stream one after the other; `read` gives the bytes of the latest."""

    def __init__(self, stream: Stream) -> None:
        """Read nothing yet."""
        self._stream = stream
        self._at = 0
        self._left = 0
        """Bytes of the latest member that have not been read."""

    def __iter__(self) -> Iterator[Header]:
        """Iterate over the members; `InvalidSpec` where it is no tar that can be read."""
        everywhere: dict[str, str] = {}
        once: dict[str, str] = {}
        in_a_row = 0
        while (block := self._block()) is not None:
            header = _parse(block, self._at)
            self._left = header.size
            if header.kind in _EXTENDED:
                in_a_row += 1
                if in_a_row > MAX_EXTENDED:
                    malformed("a member has too many extended headers")
                extended = self._extended(header)
                (everywhere if header.kind == _PAX_GLOBAL else once).update(extended)
            else:
                header = _with_extended(header, {**everywhere, **once})
                once, in_a_row = {}, 0
                self._left = header.size
                yield header
            self._finish(header)

    def read(self, size: int) -> bytes:
        """Return bytes of the member that was last yielded, `size` at most; none at its end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        data = self._stream.read(wanted)
        if not data:
            malformed("it ends within a member")
        self._left -= len(data)
        self._at += len(data)
        return data

    def _block(self) -> bytes | None:
        """Return the next header's block; None where the archive ends."""
        block = self._exactly(_BLOCK)
        if block == _END[: len(block)]:
            return None
        if len(block) < _BLOCK:
            malformed("it ends within a header")
        return block

    def _exactly(self, size: int) -> bytes:
        """Return that many bytes, or all that are left."""
        found = b""
        while len(found) < size:
            data = self._stream.read(size - len(found))
            if not data:
                break
            found += data
        self._at += len(found)
        return found

    def _extended(self, header: Header) -> Mapping[str, str]:
        if header.size > MAX_HEADER:
            malformed("an extended header is too long")
        body = self._exactly(header.size)
        self._left = 0
        if len(body) < header.size:
            malformed("it ends within an extended header")
        if header.kind == _LONG_NAME:
            return {"path": _text(body)}
        if header.kind == _LONG_LINK:
            return {"linkpath": _text(body)}
        return dict(_pax_records(body))

    def _finish(self, header: Header) -> None:
        """Go to the end of a member, and of the block that it ends in."""
        if isinstance(self._stream, Skipping) and self._left:
            skipped = self._stream.skip(self._left)
            if skipped < self._left:
                malformed("it ends within a member")
            self._at += skipped
            self._left = 0
        while self._left:
            self.read(_SKIP)
        # The last block of an archive may be cut off at the end of its content.
        self._exactly(-header.size % _BLOCK)


def malformed(why: str) -> NoReturn:
    """Refuse an archive; `InvalidSpec`."""
    raise InvalidSpec(f"not a tar archive that can be read: {why}")


def _parse(block: bytes, start: int) -> Header:
    claimed = _number(block[148:156])
    if claimed != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        malformed("a header has a wrong checksum")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    kind = block[156:157]
    has_content = kind in FILE_KINDS or kind in _EXTENDED or kind == _OLD_SPARSE
    return Header(
        name=name,
        link=_text(block[157:257]),
        kind=kind,
        mode=_number(block[100:108]),
        uid=_id(_number(block[108:116])),
        gid=_id(_number(block[116:124])),
        mtime=_number(block[136:148], signed=True),
        start=start,
        size=_number(block[124:136]) if has_content else 0,
    )


def _pax_records(body: bytes) -> Iterator[tuple[str, str]]:
    """Iterate over records: a length that counts all of it, a space, `KEY=VALUE`, a newline."""
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 8)
        length = body[at:space] if space > 0 else b""
        if not length.isdigit():
            malformed("a pax record has no length")
        end = at + int(length)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end > len(body) or end <= space or body[end - 1 : end] != b"\n" or not equals:
            malformed("a pax record is broken")
        name = key.decode("utf-8", "surrogateescape")
        if name.startswith(_SPARSE):
            name = _SPARSE
        # Others are not kept: a stream may have any number of headers, and global ones last.
        if name in _KEYS:
            yield name, value.decode("utf-8", "surrogateescape")
        at = end


def _with_extended(header: Header, extended: Mapping[str, str]) -> Header:
    name = extended.get("path", header.name)
    if header.kind == _OLD_SPARSE or _SPARSE in extended:
        raise InvalidSpec(f"archive member {name!r} is sparse; sparse files are refused")
    return replace(
        header,
        name=name,
        link=extended.get("linkpath", header.link),
        size=_whole(extended, "size", header.size) if header.kind in FILE_KINDS else header.size,
        uid=_id(_whole(extended, "uid", header.uid)),
        gid=_id(_whole(extended, "gid", header.gid)),
        mtime=_seconds(extended.get("mtime"), header.mtime),
    )


def _whole(extended: Mapping[str, str], key: str, otherwise: int) -> int:
    digits = extended.get(key)
    if digits is None:
        return otherwise
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        malformed(f"a pax {key} is not a number")
    return int(digits)


def _seconds(text: str | None, otherwise: int) -> int:
    """Return the whole seconds of a time; what is none is of no importance to anybody."""
    whole = (text or "").partition(".")[0]
    sign, digits = (-1, whole[1:]) if whole.startswith("-") else (1, whole)
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 20
    return sign * int(digits) if is_number else otherwise


def _id(number: int) -> int:
    if number > _LAST_ID:
        malformed("a header has an impossible owner")
    return number


def _number(text: bytes, *, signed: bool = False) -> int:
    if text[0] & 0x80:  # base 256, for what octal digits have no room for
        if signed and text[0] == 0xFF:
            return int.from_bytes(text, "big", signed=True)
        value = int.from_bytes(text, "big") - (0x80 << (8 * (len(text) - 1)))
        if text[0] != 0x80 or value >= 1 << 63:
            malformed("a header has an impossible number")
        return value
    digits = text.strip(b" \0")
    if digits.strip(b"01234567"):
        malformed("a header has a number that is not octal")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
