"""Archives from tenants and for tenants, made to lead astray whoever reads them.

Into a sandbox: an archive is unpacked below its target, or nothing is written.  Out of one: what a
taken-over guest answers becomes an archive that Python's own cautious reader extracts without
leaving its directory, or is refused.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandpool.backends.base import BoxSpec
from sandpool.errors import FileFailed, FileTooLarge, GuestError, InvalidSpec
from sandpool.manager import archive
from sandpool.models import DirEntry
from sandpool.testing import FakeBackend, FakeBox

pytestmark = pytest.mark.anyio

bounded = settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_BLOCK = 512
_PARTS = ("a", "b", ".", "..", "", "c" * 90, "d\0e", "é", "\udcff", "-rf", "a\nb", "*")

names = st.lists(st.sampled_from(_PARTS), min_size=1, max_size=4).map("/".join) | st.sampled_from(
    ["/", "/etc/passwd", "//a", "a/", "./a", "../../x", "a/../../x", "~root", "C:\\x", "a" * 5000]
)
types = st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"Q", b"V"])
sizes = st.sampled_from([None, 0, 1, 7, 512, 2**33, 2**63, 2**80, -1, -512])
extended_headers = st.none() | st.dictionaries(
    st.sampled_from(["path", "linkpath", "size", "GNU.sparse.major", "GNU.sparse.map", "mtime"]),
    names | st.sampled_from(["0", "3", "-1", "99999999999999999999", "1" * 5000, "0x10", "\uff13"]),
    max_size=3,
)
members = st.tuples(
    st.sampled_from(["x", "g", "L", "K"]), extended_headers, names, types, names, sizes
)


def _header(name: bytes, kind: bytes, link: bytes, size: int, mode: bytes = b"0004777\0") -> bytes:
    if 0 <= size < 8**11:
        number = b"%011o\0" % size
    else:  # base 256, negative numbers and those that no file has
        number = (size & (1 << 96) - 1).to_bytes(12, "big")
        number = bytes([number[0] | 0x80]) + number[1:]
    block = bytearray(_BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = mode
    block[108:124] = b"0000000\0" * 2
    block[124:136] = number
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _member(member: Any) -> bytes:
    """Return one member, with an extended header before it, as nobody's tar would write them."""
    style, extended, name, kind, link, size = member
    content = b"content"
    packed = b""
    if extended is not None:
        if style in "xg":
            records = [_record(key, value) for key, value in extended.items()]
            body = b"".join(records)
        else:
            body = _bytes(extended.get("path", "long")) + b"\0"
        packed += _header(b"extended", style.encode(), b"", len(body)) + _padded(body)
    packed += _header(_bytes(name), kind, _bytes(link), len(content) if size is None else size)
    return packed + _padded(content)


def _record(key: str, value: str) -> bytes:
    rest = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


async def _tree(box: FakeBox) -> dict[str, bytes]:
    return {
        entry.path: b"".join([piece async for piece in box.read_file(entry.path)])
        for entry in await box.list_files("/", depth=200)
        if entry.type == "file"
    }


@bounded
@given(parts=st.lists(members, min_size=1, max_size=4), end=st.sampled_from([0, 1, 2, 3]))
@example(parts=[("x", {"path": "../x"}, "a", b"0", "", None)], end=2)
@example(parts=[("g", {"path": "/etc/x"}, "a", b"0", "", None)], end=2)
@example(parts=[("x", {"size": "3"}, "a", b"0", "", None)], end=2)
@example(parts=[("x", None, "a", b"0", "", 2**63)], end=2)
async def test_an_archive_is_unpacked_below_its_target_or_not_at_all(
    parts: list[Any], end: int
) -> None:
    data = b"".join(map(_member, parts)) + bytes(_BLOCK * end)
    box = await FakeBackend().create(BoxSpec(), box_id="a")
    before = await _tree(box)
    try:
        await archive.unpack(box, "/t/here", data)
    except (InvalidSpec, FileTooLarge):
        assert await _tree(box) == before
        return
    except FileFailed:
        pass  # it is for the sandbox's file system to say which good names it cannot hold
    after = await _tree(box)
    assert {path for path in after if not path.startswith("/t/here/")} == set(before)
    assert all(content in data for content in after.values())


class Guest:
    """A guest that its tenant has taken over: it says of its files what it likes."""

    def __init__(self, root: DirEntry, entries: list[DirEntry], content: bytes) -> None:
        self._root = root
        self._entries = entries
        self._content = content

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        return self._root

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        return self._entries

    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield self._content


paths = names.map(lambda name: f"/w/t/{name}") | names | st.just("/w/t")
entries = st.builds(
    DirEntry.model_construct,
    name=names,
    path=paths,
    type=st.sampled_from(["file", "directory", "symlink", "other"]),
    size=st.sampled_from([0, 1, -5, 2**63, 2**200]),
    mode=st.sampled_from([0o644, 0o4777, -1, 2**40]),
    mtime=st.sampled_from([0.0, -1.0, 1e300, float("nan"), float("inf"), 1.5]),
    target=st.none() | names,
)

_ROOT = DirEntry(name="t", path="/w/t", type="directory", size=0, mode=0o755, mtime=0.0)


@bounded
@given(root=st.just(_ROOT) | entries, listed=st.lists(entries, max_size=4))
async def test_what_a_guest_answers_becomes_an_archive_that_stays_where_it_is_unpacked(
    root: DirEntry, listed: list[DirEntry]
) -> None:
    guest = Guest(root, listed, b"x" * 100)
    try:
        data = await archive.pack(guest, "/w/t", max_size=100_000)
    except (GuestError, FileTooLarge):
        return
    assert len(data) <= 110_000
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        for info in found:
            assert not info.name.startswith("/")
            assert ".." not in info.name.split("/")
            assert info.isreg() or info.isdir() or info.issym()
            assert info.mode & ~0o777 == 0
            assert info.name == "t" or info.name.startswith("t/") or root is not _ROOT


async def test_an_archive_with_more_than_its_limits_is_refused_before_anything_is_read() -> None:
    claimed = _header(b"huge", b"0", b"", 2**62)
    box = await FakeBackend().create(BoxSpec(), box_id="a")
    with pytest.raises((InvalidSpec, FileTooLarge)):
        await archive.unpack(box, "/t", claimed + bytes(_BLOCK * 2))
    assert not await _tree(box)


@settings(bounded, max_examples=60)
@given(st.lists(members, min_size=1, max_size=3))
async def test_what_is_unpacked_is_what_everybody_elses_reader_finds(parts: list[Any]) -> None:
    data = b"".join(map(_member, parts)) + bytes(_BLOCK * 2)
    box = await FakeBackend().create(BoxSpec(), box_id="a")
    try:
        await archive.unpack(box, "/t", data)
    except (InvalidSpec, FileTooLarge, FileFailed):
        return
    ours = await _tree(box)
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(fileobj=io.BytesIO(data)) as found:
            if not hasattr(tarfile, "data_filter"):
                pytest.skip("this Python has no cautious reader to compare with")
            found.extractall(directory, filter="data")
        theirs = {
            f"/t/{path.relative_to(directory)}": path.read_bytes()
            for path in Path(directory).rglob("*")
            if path.is_file()
        }
    assert ours == theirs
