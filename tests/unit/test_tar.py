"""The reader of tar streams: what it tells of members, and what it holds at most."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import InvalidSpec
from sandpool.tar import TarReader


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def packed(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=format) as writer:
        for info, content in members:
            writer.addfile(info, io.BytesIO(content))
    return found.getvalue()


class Trickle:
    """A stream that gives little at a time, and counts what it has given."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)
        self.most = 0

    def read(self, size: int, /) -> bytes:
        self.most = max(self.most, size)
        return self._stream.read(min(size, 7))


@given(st.lists(st.binary(max_size=2000), max_size=4), st.booleans())
def test_what_is_read_of_a_member_is_its_content_and_what_is_not_is_passed_over(
    contents: list[bytes], reads: bool
) -> None:
    data = packed(*(member(f"f{number}", content) for number, content in enumerate(contents)))
    reader = TarReader(Trickle(data))
    found: list[bytes] = []
    for number, header in enumerate(reader):
        assert (header.name, header.size) == (f"f{number}", len(contents[number]))
        assert data[header.start : header.start + header.size] == contents[number]
        content = b""
        while reads and (piece := reader.read(11)):
            content += piece
        found.append(content)
    assert found == (contents if reads else [b""] * len(contents))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_owners_and_times_are_told(format: int) -> None:
    data = packed(member("f", uid=3_000_000, gid=4_000_000_000, mtime=1_700_000_000), format=format)
    (header,) = TarReader(io.BytesIO(data))
    assert (header.uid, header.gid, header.mtime) == (3_000_000, 4_000_000_000, 1_700_000_000)


def test_a_time_before_all_others_and_one_with_a_fraction_are_read() -> None:
    old = packed(member("f", mtime=-5), format=tarfile.GNU_FORMAT)
    assert next(iter(TarReader(io.BytesIO(old)))).mtime == -5
    fine = packed(member("f", mtime=1.75))
    assert next(iter(TarReader(io.BytesIO(fine)))).mtime == 1


def test_an_impossible_owner_is_refused() -> None:
    data = packed(member("f", uid=1 << 32), format=tarfile.GNU_FORMAT)
    with pytest.raises(InvalidSpec, match="owner"):
        list(TarReader(io.BytesIO(data)))


def test_headers_that_are_too_long_or_too_many_are_refused_before_they_are_held() -> None:
    stream = Trickle(packed(member("f", pax_headers={"comment": "x" * 100_000})))
    with pytest.raises(InvalidSpec, match="too long"):
        list(TarReader(stream))
    assert stream.most <= 512
    header = packed(member("f", pax_headers={"comment": "x"}))[:1024]
    with pytest.raises(InvalidSpec, match="too many"):
        list(TarReader(io.BytesIO(header * 40)))


def test_global_headers_hold_nothing_that_nobody_asks_for() -> None:
    data = b""
    for number in range(200):
        header = tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * 1000})
        data += header + packed(member("f"))[:512]
    reader = TarReader(io.BytesIO(data))
    assert len(list(reader)) == 200
