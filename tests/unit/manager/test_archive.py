"""Archives in and out of a sandbox: nothing is written before all is known to be good."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandpool.backends.base import BoxSpec, Limits
from sandpool.errors import FileFailed, FileTooLarge, InvalidSpec
from sandpool.manager import archive, tar
from sandpool.models import DirEntry
from sandpool.testing import FakeBackend, FakeBox

pytestmark = pytest.mark.anyio

Change = Callable[[tarfile.TarInfo], None]


def packed(*members: tuple[str, bytes, Change | None]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as writer:
        for name, content, change in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None:
                change(info)
            writer.addfile(info, io.BytesIO(content))
    return data.getvalue()


def link(target: str) -> Change:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.SYMTYPE, target

    return change


def mode(bits: int) -> Change:
    def change(info: tarfile.TarInfo) -> None:
        info.mode = bits

    return change


async def tree(box: FakeBox, path: str) -> dict[str, bytes]:
    return {
        entry.path: b"".join([piece async for piece in box.read_file(entry.path)])
        for entry in await box.list_files(path, depth=9)
        if entry.type == "file"
    }


@pytest.fixture
async def box() -> FakeBox:
    return await FakeBackend().create(BoxSpec(), box_id="a")


# --- into a sandbox -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/new/place", "/new/place/"])
async def test_an_archive_is_unpacked_below_its_target(box: FakeBox, target: str) -> None:
    big = os.urandom(200_000)
    data = packed(("./a/b", big, None), ("c", b"", None))
    await archive.unpack(box, target, data)
    assert await tree(box, "/new") == {"/new/place/a/b": big, "/new/place/c": b""}


async def test_an_archive_can_be_unpacked_at_the_root(box: FakeBox) -> None:
    await archive.unpack(box, "/", packed(("c", b"x", None)))
    assert (await box.stat_file("/c")).size == 1


async def test_what_is_unpacked_can_be_read_and_written_and_has_no_power(box: FakeBox) -> None:
    data = packed(("f", b"", mode(0)), ("g", b"", mode(0o6755)))
    await archive.unpack(box, "/t", data)
    assert (await box.stat_file("/t/f")).mode == 0o600
    assert (await box.stat_file("/t/g")).mode == 0o755


@pytest.mark.parametrize(
    ("name", "change"),
    [("../up", None), ("/etc/passwd", None), ("link", link("/etc")), ("good/f/below", None)],
)
async def test_one_bad_member_leaves_the_sandbox_as_it_was(
    box: FakeBox, name: str, change: Change | None
) -> None:
    data = packed(("good/f", b"x", None), (name, b"", change), ("more", b"x", None))
    with pytest.raises(InvalidSpec):
        await archive.unpack(box, "/t", data)
    with pytest.raises(FileNotFoundError):
        await box.stat_file("/t")


async def test_a_large_archive_is_read_as_strictly_as_a_small_one(box: FakeBox) -> None:
    data = packed(("f", bytes(2 << 20), None), ("../up", b"", None))
    with pytest.raises(InvalidSpec):
        await archive.unpack(box, "/t", data)


async def test_a_full_disk_is_told_as_such() -> None:
    box = await FakeBackend().create(BoxSpec(limits=Limits(disk_mb=1)), box_id="a")
    data = packed(("f", bytes((1 << 20) + 1), None))
    with pytest.raises(FileFailed, match="No space"):
        await archive.unpack(box, "/t", data)


# --- out of a sandbox -----------------------------------------------------------------------------


async def test_a_tree_comes_out_as_it_went_in(box: FakeBox) -> None:
    await archive.unpack(box, "/w/t", packed(("a/b", b"1", None), ("c", b"22", None)))
    data = await archive.pack(box, "/w/t")
    names = {member.name: member.is_dir for member in tar.read_members(data)}
    assert names == {"t": True, "t/a": True, "t/a/b": False, "t/c": False}
    await archive.unpack(box, "/again", data)
    assert await tree(box, "/again") == {"/again/t/a/b": b"1", "/again/t/c": b"22"}


async def test_one_file_comes_out_under_its_own_name(box: FakeBox) -> None:
    await box.write_file("/w/f", b"abc", mode=0o640)
    with tarfile.open(fileobj=io.BytesIO(await archive.pack(box, "/w/f"))) as found:
        assert [(info.name, info.size, info.mode) for info in found] == [("f", 3, 0o640)]


async def test_packing_what_is_not_there_says_so(box: FakeBox) -> None:
    with pytest.raises(FileNotFoundError):
        await archive.pack(box, "/ghost")


async def test_an_archive_stops_where_it_would_be_too_large(box: FakeBox) -> None:
    for number in range(10):
        await box.write_file(f"/w/{number}", bytes(1000))
    assert len(await archive.pack(box, "/w", max_size=30_720)) <= 30_720
    with pytest.raises(FileTooLarge, match="5000"):
        await archive.pack(box, "/w", max_size=5000)


class Liar:
    """A guest that says that a file is small and then never stops sending it."""

    def __init__(self, target: str | None = None) -> None:
        self.sent = 0
        self.target = target

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        return self.entry(path)

    def entry(self, path: str) -> DirEntry:
        kind = "file" if self.target is None else "symlink"
        return DirEntry.model_validate(
            {
                "name": path.rpartition("/")[2],
                "path": path,
                "type": kind,
                "size": 1,
                "mode": 0o104755,
                "mtime": -1.0,
                "target": self.target,
            }
        )

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        return [self.entry(f"{path}/f")]

    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1000
            yield bytes(1000)


async def test_a_guest_that_never_stops_sending_is_left() -> None:
    liar = Liar()
    with pytest.raises(FileTooLarge):
        await archive.pack(liar, "/f", max_size=10_000)
    assert liar.sent <= 11_000


async def test_a_link_comes_out_as_a_link_and_is_not_followed() -> None:
    liar = Liar(target="/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(await archive.pack(liar, "/f"))) as found:
        [info] = found
    assert (info.issym(), info.linkname, info.size) == (True, "/etc/passwd", 0)
    assert (info.mode, info.mtime) == (0o755, 0)
    assert liar.sent == 0


# --- from this machine ----------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with everything that is copied, and what is not."""
    root = tmp_path / "source"
    (root / "d" / "empty").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"1" * 100_000)
    script = root / "script"
    script.write_bytes(b"#!")
    script.chmod(0o755)
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "linked-directory").symlink_to("/etc")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    return root


async def test_a_directory_is_copied_without_its_links_and_pipes(
    source: Path, box: FakeBox
) -> None:
    await archive.copy_dir(box, source, "/t/")
    found = {entry.path: entry.type for entry in await box.list_files("/t", depth=9)}
    assert found == {
        "/t/d": "directory",
        "/t/d/empty": "directory",
        "/t/d/f": "file",
        "/t/script": "file",
    }
    assert (await tree(box, "/t"))["/t/d/f"] == b"1" * 100_000
    assert (await box.stat_file("/t/script")).mode == 0o755


async def test_a_packed_directory_has_what_a_copied_one_has(source: Path) -> None:
    data = archive.pack_dir(source)
    assert {member.name for member in tar.read_members(data)} == {"d", "d/empty", "d/f", "script"}
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        assert {(info.uid, info.gid, info.uname, info.gname) for info in found} == {(0, 0, "", "")}


@pytest.mark.parametrize("name", ["ghost", "script"])
async def test_only_a_directory_can_be_copied(source: Path, box: FakeBox, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        await archive.copy_dir(box, source / name, "/t")
    with pytest.raises(FileNotFoundError, match=name):
        archive.pack_dir(source / name)
    with pytest.raises(FileNotFoundError):
        await box.stat_file("/t")


async def test_a_packed_file_is_an_archive_of_it() -> None:
    data = archive.pack_file("f", b"abc")
    [member] = tar.read_members(data)
    assert (member.name, data[member.start : member.start + member.size]) == ("f", b"abc")


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "parts"), [("/a/b/c", ("/a/b", "c")), ("/c", ("/", "c"))])
async def test_a_path_is_a_directory_and_a_name(path: str, parts: tuple[str, str]) -> None:
    assert archive.split_file_path(path) == parts


@pytest.mark.parametrize("path", ["", "c", "a/c", "/", "/a/", "/a/.", "/a/.."])
async def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(InvalidSpec, match="file_path"):
        archive.split_file_path(path)


@pytest.mark.parametrize("target", ["", "  ", None, 3])
async def test_a_target_has_to_be_said(target: object) -> None:
    with pytest.raises(InvalidSpec, match="target_dir"):
        archive.check_target_dir(target)
