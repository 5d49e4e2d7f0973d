"""What the files of every sandbox do, wherever the sandbox lives."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterator

import pytest

from sandpool.errors import FileFailed, FileMissing, FileTooLarge, LeaseOver, SandpoolError
from sandpool.models import PoolSpec
from sandpool.service import Files, SandboxService

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256)) * 700
"""More than a piece, and no text."""

LARGE = 8 * 1024 * 1024


@pytest.fixture
async def files(service: SandboxService) -> AsyncIterator[Files]:
    """The files of a borrowed sandbox."""
    await service.create_pool(PoolSpec(name="one", warm=1, max=2))
    async with service.lease("one") as sandbox:
        yield sandbox.files


async def pieces(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("content", [b"", b"\0", BINARY])
async def test_bytes_come_back_as_they_went(files: Files, content: bytes) -> None:
    assert await files.write("deep/in/here", content) == len(content)
    assert await files.read("deep/in/here") == content


async def test_text_comes_back_as_it_went(files: Files) -> None:
    await files.write("text", "naïve\r\n")
    assert (await files.read_text("text"), await files.read("text")) == (
        "naïve\r\n",
        "naïve\r\n".encode(),
    )
    with pytest.raises(UnicodeDecodeError):
        await files.read_text("text", encoding="ascii")


@pytest.mark.parametrize("path", ["a b", "ä%2F?#&=", "-x", "a+b", "..."])
async def test_a_name_means_itself_whatever_is_in_it(files: Files, path: str) -> None:
    await files.write(path, path)
    assert await files.read_text(path) == path
    assert [entry.name for entry in await files.list()] == [path]


async def test_a_large_file_streams_both_ways(files: Files) -> None:
    block = hashlib.sha256(b"seed").digest() * 2048
    count = LARGE // len(block)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield block

    assert await files.write("/tmp/large", blocks()) == LARGE
    received = hashlib.sha256()
    sizes: list[int] = []
    async for piece in files.stream("/tmp/large"):
        received.update(piece)
        sizes.append(len(piece))
    assert received.digest() == hashlib.sha256(block * count).digest()
    assert max(sizes) < LARGE


async def test_a_stream_may_be_left_early(files: Files) -> None:
    await files.write("/tmp/f", BINARY * 10)
    async for piece in files.stream("/tmp/f"):
        assert BINARY.startswith(piece[:100])
        break
    assert len(await files.read("/tmp/f")) == len(BINARY) * 10


async def test_a_source_that_fails_leaves_the_old_file(files: Files) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"new"
        raise ZeroDivisionError

    await files.write("f", "old")
    with pytest.raises(ZeroDivisionError):
        await files.write("f", failing())
    assert await files.read_text("f") == "old"
    assert [entry.name for entry in await files.list()] == ["f"]


async def test_a_file_is_replaced_whole(files: Files) -> None:
    await files.write("f", "longer than the next")
    await files.write("f", pieces(b"short"))
    assert await files.read_text("f") == "short"


async def test_a_file_that_is_too_large_is_refused(files: Files) -> None:
    await files.write("f", b"12345")
    assert await files.read("f", max_size=5) == b"12345"
    with pytest.raises(FileTooLarge):
        await files.read("f", max_size=4)


async def test_appending_makes_a_file_and_adds_to_it(files: Files) -> None:
    assert await files.append("new/log", b"one ") == 4
    assert await files.append("new/log", "two") == 3
    assert await files.read_text("new/log") == "one two"


async def test_permission_bits_are_given_and_kept(files: Files) -> None:
    await files.write("f", "x", mode=0o640)
    assert (await files.stat("f")).mode == 0o640
    await files.write("f", "y")
    assert (await files.stat("f")).mode == 0o640


async def test_a_path_is_described(files: Files) -> None:
    await files.write("d/f", b"123")
    found = await files.stat("d/f")
    assert (found.name, found.type, found.size) == ("f", "file", 3)
    assert found.path.endswith("/d/f")
    assert (await files.stat("d")).type == "directory"


async def test_a_listing_goes_as_deep_as_it_is_told(files: Files) -> None:
    for path in ("/tmp/top/b", "/tmp/top/a/x", "/tmp/top/a/deep/y"):
        await files.write(path, "")

    async def names(depth: int) -> list[str]:
        listing = await files.list("/tmp/top", depth=depth)
        return [entry.path.removeprefix("/tmp/top/") for entry in listing]

    assert await names(1) == ["a", "b"]
    assert await names(2) == ["a", "a/deep", "a/x", "b"]
    assert await names(3) == ["a", "a/deep", "a/deep/y", "a/x", "b"]


async def test_moving_replaces_what_is_there(files: Files) -> None:
    await files.write("from", "new")
    await files.write("to", "old")
    await files.move("from", "to")
    assert (await files.read_text("to"), await files.exists("from")) == ("new", False)


async def test_a_directory_is_made_once_or_twice(files: Files) -> None:
    for _ in range(2):
        await files.mkdir("a/b/c")
    assert (await files.stat("a/b/c")).type == "directory"


async def test_a_tree_is_removed_only_as_one(files: Files) -> None:
    await files.write("tree/f", "")
    with pytest.raises(FileFailed) as refused:
        await files.remove("tree")
    assert refused.value.errno in (errno.ENOTEMPTY, errno.EISDIR)
    assert await files.exists("tree/f")
    await files.remove("tree", recursive=True)
    assert not await files.exists("tree")


async def test_what_is_absent_is_missing_under_its_name(files: Files) -> None:
    for call in (
        files.read("absent"),
        files.stat("absent"),
        files.list("absent"),
        files.remove("absent"),
        files.move("absent", "there"),
    ):
        with pytest.raises(FileMissing) as missing:
            await call
        assert isinstance(missing.value, FileNotFoundError)
        assert missing.value.errno == errno.ENOENT
        assert str(missing.value.filename).endswith("absent")
    with pytest.raises(FileMissing):
        async for _ in files.stream("absent"):
            pass
    await files.remove("absent", missing_ok=True)
    assert not await files.exists("absent")


async def test_a_directory_cannot_be_read_as_a_file(files: Files) -> None:
    await files.mkdir("d")
    with pytest.raises(FileFailed) as refused:
        await files.read("d")
    assert refused.value.errno == errno.EISDIR


async def test_a_file_has_nothing_below_it(files: Files) -> None:
    await files.write("f", "")
    with pytest.raises(FileFailed) as refused:
        await files.read("f/below")
    assert refused.value.errno in (errno.ENOTDIR, errno.ENOENT)


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("native", marks=pytest.mark.namespaces),
        pytest.param("remote-native", marks=pytest.mark.namespaces),
    ],
    indirect=True,
)
async def test_what_the_kernel_refuses_is_told(files: Files) -> None:
    for call in (files.write("/proc/new", "x"), files.write("/usr/new", "x")):
        with pytest.raises(FileFailed) as refused:
            await call
        assert refused.value.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


async def test_files_end_with_the_lease(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1))
    async with service.lease("one") as sandbox:
        files = sandbox.files
    for call in (files.read("f"), files.write("f", "x"), files.list(), files.exists("f")):
        with pytest.raises(LeaseOver):
            await call


async def test_a_nul_byte_is_in_no_path(files: Files) -> None:
    with pytest.raises(SandpoolError):
        await files.write("a\0b", "x")
