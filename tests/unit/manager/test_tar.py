"""Archives are hostile: read whole and strictly, or refused whole."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import FileTooLarge, InvalidSpec
from sandpool.manager import tar

Change = Callable[[tarfile.TarInfo], None]


def archive(*members: tuple[str, bytes, Change | None], format: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as writer:
        for name, content, change in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None:
                change(info)
            writer.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def kind(value: bytes, link: str = "") -> Change:
    def change(info: tarfile.TarInfo) -> None:
        info.type = value
        info.linkname = link

    return change


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_common_form_is_read(format: int) -> None:
    data = archive(("d/", b"", kind(tarfile.DIRTYPE)), ("d/f", b"abc", None), format=format)
    members = {member.name: member for member in tar.read_members(data)}
    assert members["d"].is_dir
    found = members["d/f"]
    assert data[found.start : found.start + found.size] == b"abc"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(format: int) -> None:
    name = "/".join(["n" * 90] * 4)
    assert tar.read_members(archive((name, b"x", None), format=format))[0].name == name


def test_a_hard_link_is_a_copy_of_what_came_before() -> None:
    data = archive(("f", b"abc", None), ("g", b"", kind(tarfile.LNKTYPE, "f")))
    first, second = tar.read_members(data)
    assert (first.start, first.size) == (second.start, second.size)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("/etc/passwd", None),
        ("../up", None),
        ("a/../../up", None),
        ("a/.", None),
        ("link", kind(tarfile.SYMTYPE, "/etc")),
        ("link", kind(tarfile.LNKTYPE, "/etc/passwd")),
        ("link", kind(tarfile.LNKTYPE, "not-there")),
        ("disk", kind(tarfile.BLKTYPE)),
        ("terminal", kind(tarfile.CHRTYPE)),
        ("pipe", kind(tarfile.FIFOTYPE)),
        ("sparse", kind(tarfile.GNUTYPE_SPARSE)),
        ("strange", kind(b"Q")),
        ("/".join("d" * 200), None),
    ],
)
def test_one_bad_member_refuses_the_whole_archive(name: str, change: Change | None) -> None:
    with pytest.raises(InvalidSpec):
        tar.read_members(archive(("good", b"x", None), (name, b"", change)))


def test_a_file_cannot_be_a_directory_too() -> None:
    with pytest.raises(InvalidSpec):
        tar.read_members(archive(("a", b"x", None), ("a/b", b"x", None)))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_archive_is_refused_for_what_it_is(mode: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode):  # type: ignore[call-overload]
        pass
    with pytest.raises(InvalidSpec, match="compress"):
        tar.read_members(packed.getvalue())


def test_a_size_that_the_archive_does_not_have_is_refused() -> None:
    data = bytearray(archive(("f", b"abc", None), format=tarfile.USTAR_FORMAT))
    data[124:136] = b"77777777777\0"
    header = bytes(data[:148]) + b" " * 8 + bytes(data[156:512])
    data[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises((InvalidSpec, FileTooLarge)):
        tar.read_members(bytes(data))


def test_no_number_of_members_is_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    with pytest.raises((InvalidSpec, FileTooLarge)):
        tar.read_members(archive(*[(f"f{number}", b"", None) for number in range(4)]))


@given(st.binary(max_size=4096))
def test_any_bytes_are_an_archive_or_refused(data: bytes) -> None:
    try:
        tar.read_members(data)
    except (InvalidSpec, FileTooLarge):
        return


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=64))
def test_an_archive_with_a_wound_is_read_within_its_bounds_or_refused(
    at: int, wound: bytes
) -> None:
    whole = archive(("d/f", b"abc" * 100, None), ("g", b"x", None))
    data = whole[:at] + wound + whole[at + len(wound) :]
    try:
        members = tar.read_members(data)
    except (InvalidSpec, FileTooLarge):
        return
    for member in members:
        assert 0 <= member.start <= member.start + member.size <= len(data)
        assert not member.name.startswith("/")
        assert ".." not in member.name.split("/")
