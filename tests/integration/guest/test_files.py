"""Files go in and out whole, with the tenant's rights, and nothing of a broken-off one stays."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import FileFailed, FileMissing

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

EVERY_BYTE = bytes(range(256)) * 3


async def content(box: Box, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in box.read_file(path, offset=offset, length=length)])


async def run(box: Box, *argv: str) -> str:
    result = await box.exec(RunOptions(argv=argv, timeout=10))
    assert result.ok, result
    return result.stdout


async def names(box: Box, path: str) -> list[str]:
    return [entry.name for entry in await box.list_files(path)]


@pytest.mark.parametrize("data", [b"", b"\0", EVERY_BYTE], ids=["empty", "nul", "every byte"])
async def test_what_is_written_is_read(box: Box, data: bytes) -> None:
    assert await box.write_file("/sandbox/f", data) == len(data)
    assert await content(box, "/sandbox/f") == data


@pytest.mark.parametrize(
    "name", ["with space", "\n", "-rf", "ümläut-\U0001f980", "%s{}'\"$(id)", "n" * 255]
)
async def test_any_name_is_only_a_name(box: Box, name: str) -> None:
    await box.write_file(f"/sandbox/d/{name}", b"x")
    [entry] = await box.list_files("/sandbox/d")
    assert (entry.name, entry.path) == (name, f"/sandbox/d/{name}")
    assert await content(box, entry.path) == b"x"
    await box.remove_file(entry.path)
    assert await names(box, "/sandbox/d") == []


async def test_a_relative_path_is_below_the_working_directory(box: Box) -> None:
    await box.write_file("a/./b//c", b"x")
    assert await run(box, "cat", "/sandbox/a/b/c") == "x"


async def test_several_mebibytes_stream_both_ways(box: Box) -> None:
    block = os.urandom(1 << 16)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(96):
            yield block

    assert await box.write_file("/sandbox/big", blocks()) == 96 << 16
    expected = hashlib.sha256(block * 96)
    assert (await run(box, "sha256sum", "/sandbox/big")).split()[0] == expected.hexdigest()
    found = hashlib.sha256()
    async for piece in box.read_file("/sandbox/big"):
        found.update(piece)
    assert found.digest() == expected.digest()


async def test_uploads_and_downloads_run_side_by_side(box: Box) -> None:
    async def there_and_back(number: int) -> None:
        data = os.urandom(1 << 20)
        await box.write_file(f"/sandbox/{number}", data)
        assert await content(box, f"/sandbox/{number}") == data

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(there_and_back, number)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"012"), (4, None, b"456789"), (8, 5, b"89"), (99, None, b""), (2, 0, b"")],
)
async def test_a_part_of_a_file_can_be_read(
    box: Box, offset: int, length: int | None, expected: bytes
) -> None:
    await box.write_file("/sandbox/f", b"0123456789")
    assert await content(box, "/sandbox/f", offset=offset, length=length) == expected


async def test_an_abandoned_download_lets_go_of_its_file(box: Box) -> None:
    free = await run(box, "stat", "-f", "-c", "%f", "/sandbox")
    await box.write_file("/sandbox/big", bytes(4 << 20))
    for _ in range(3):
        stream = box.read_file("/sandbox/big")
        assert await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
    await box.remove_file("/sandbox/big")
    # A removed file that is still open keeps its blocks.
    assert await run(box, "stat", "-f", "-c", "%f", "/sandbox") == free


async def test_appending_adds_at_the_end(box: Box) -> None:
    await box.write_file("/sandbox/log", b"one\n", append=True)
    await box.write_file("/sandbox/log", b"two\n", append=True)
    assert await content(box, "/sandbox/log") == b"one\ntwo\n"


async def test_a_new_file_has_the_mode_that_was_asked_for(box: Box) -> None:
    await box.write_file("/sandbox/tool", b"#!/bin/sh\necho ran\n", mode=0o755)
    assert (await box.stat_file("/sandbox/tool")).mode == 0o755
    assert await run(box, "/sandbox/tool") == "ran\n"


async def test_overwriting_keeps_the_mode(box: Box) -> None:
    await box.write_file("/sandbox/tool", b"old", mode=0o750)
    await box.write_file("/sandbox/tool", b"new")
    assert (await box.stat_file("/sandbox/tool")).mode == 0o750
    assert await content(box, "/sandbox/tool") == b"new"


async def test_missing_parents_are_made_unless_refused(box: Box) -> None:
    await box.write_file("/sandbox/a/b/c", b"x")
    assert await content(box, "/sandbox/a/b/c") == b"x"
    with pytest.raises(FileMissing):
        await box.write_file("/sandbox/no/such/place", b"x", parents=False)


async def test_an_entry_says_what_a_path_is(box: Box) -> None:
    script = "printf 123 > f; chmod 640 f; touch -d @86400 f; mkdir d; ln -s f l; mkfifo p"
    await run(box, "sh", "-c", script)
    entries = {entry.name: entry for entry in await box.list_files("/sandbox")}
    kinds = {name: entry.type for name, entry in entries.items()}
    assert kinds == {"d": "directory", "f": "file", "l": "symlink", "p": "other"}
    file, link = entries["f"], entries["l"]
    assert (file.size, file.mode, file.mtime) == (3, 0o640, 86400.0)
    assert link.target == "f"
    assert await box.stat_file("/sandbox/l", follow=False) == link
    followed = await box.stat_file("/sandbox/l")
    assert (followed.type, followed.size, followed.name) == ("file", 3, "l")


async def test_a_listing_goes_as_deep_as_asked_and_follows_no_link(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir -p t/a/b; touch t/a/b/c; ln -s /sandbox/t t/a/loop")
    shallow = [entry.path for entry in await box.list_files("/sandbox/t")]
    deep = [entry.path for entry in await box.list_files("/sandbox/t", depth=9)]
    assert shallow == ["/sandbox/t/a"]
    assert deep == ["/sandbox/t/a", "/sandbox/t/a/b", "/sandbox/t/a/b/c", "/sandbox/t/a/loop"]


async def test_a_long_listing_is_complete(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir many; cd many; seq -w 3000 | xargs touch")
    assert await names(box, "/sandbox/many") == [f"{number:04}" for number in range(1, 3001)]
    await box.remove_file("/sandbox/many", recursive=True)
    with pytest.raises(FileMissing):
        await box.list_files("/sandbox/many")


async def test_making_a_directory(box: Box) -> None:
    await box.make_dir("/sandbox/x/y")
    await box.make_dir("/sandbox/x/y")
    assert (await box.stat_file("/sandbox/x/y")).type == "directory"
    with pytest.raises(FileFailed) as exists:
        await box.make_dir("/sandbox/x/y", exist_ok=False)
    assert exists.value.errno == errno.EEXIST
    with pytest.raises(FileMissing):
        await box.make_dir("/sandbox/no/such", parents=False)


async def test_a_file_in_the_way_is_not_taken_for_a_directory(box: Box) -> None:
    await box.write_file("/sandbox/f", b"x")
    with pytest.raises(FileFailed) as taken:
        await box.make_dir("/sandbox/f")
    assert taken.value.errno == errno.EEXIST
    for attempt in (box.write_file("/sandbox/f/g", b"y"), box.make_dir("/sandbox/f/g")):
        with pytest.raises(FileFailed) as refused:
            await attempt
        assert refused.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert await content(box, "/sandbox/f") == b"x"


async def test_moving_renames_and_replaces(box: Box) -> None:
    await box.write_file("/sandbox/a", b"a")
    await box.write_file("/sandbox/b", b"b")
    with pytest.raises(FileFailed) as refused:
        await box.move_file("/sandbox/a", "/sandbox/b", overwrite=False)
    assert refused.value.errno == errno.EEXIST
    assert await content(box, "/sandbox/b") == b"b"
    await box.move_file("/sandbox/a", "/sandbox/b")
    assert await names(box, "/sandbox") == ["b"]
    assert await content(box, "/sandbox/b") == b"a"


async def test_moving_takes_a_tree_along_and_links_as_links(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir -p t/u; echo x > t/u/f; ln -s /etc t/l")
    await box.move_file("/sandbox/t", "/sandbox/new")
    found = {entry.path: entry.type for entry in await box.list_files("/sandbox", depth=9)}
    assert found == {
        "/sandbox/new": "directory",
        "/sandbox/new/l": "symlink",
        "/sandbox/new/u": "directory",
        "/sandbox/new/u/f": "file",
    }


async def test_a_file_does_not_replace_a_directory(box: Box) -> None:
    await box.write_file("/sandbox/f", b"x")
    await box.make_dir("/sandbox/d")
    for attempt in (box.move_file("/sandbox/f", "/sandbox/d"), box.write_file("/sandbox/d", b"y")):
        with pytest.raises(FileFailed) as refused:
            await attempt
        assert refused.value.errno == errno.EISDIR
    assert await names(box, "/sandbox") == ["d", "f"]


async def test_moving_reaches_across_file_systems(box: Box) -> None:
    await box.write_file("/sandbox/f", EVERY_BYTE, mode=0o750)
    await box.move_file("/sandbox/f", "/tmp/g")
    assert await content(box, "/tmp/g") == EVERY_BYTE
    assert (await box.stat_file("/tmp/g")).mode == 0o750
    assert await names(box, "/sandbox") == []


async def test_a_tree_is_moved_across_file_systems_as_it_is(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir -p t/a/b; echo x > t/a/b/f; ln -s a/b t/l; chmod 710 t/a/b")
    await box.make_dir("/tmp/there")
    await box.move_file("/sandbox/t", "/tmp/there/u")
    assert await content(box, "/tmp/there/u/l/f") == b"x\n"
    assert (await box.stat_file("/tmp/there/u/a/b")).mode == 0o710
    assert await names(box, "/tmp/there") == ["u"]
    assert await names(box, "/sandbox") == []


async def test_a_move_across_file_systems_that_fails_changes_nothing(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir t; echo x > t/f; mkfifo t/pipe")
    await box.make_dir("/tmp/there")
    with pytest.raises(FileFailed) as refused:
        await box.move_file("/sandbox/t", "/tmp/there/u")
    assert refused.value.errno == errno.EXDEV
    assert await names(box, "/sandbox/t") == ["f", "pipe"]
    assert await names(box, "/tmp/there") == []


async def test_removing_a_directory_has_to_be_meant(box: Box) -> None:
    await box.write_file("/sandbox/d/e/f", b"x")
    with pytest.raises(FileFailed) as refused:
        await box.remove_file("/sandbox/d")
    assert refused.value.errno == errno.EISDIR
    await box.remove_file("/sandbox/d", recursive=True)
    assert await names(box, "/sandbox") == []


async def test_removing_a_tree_leaves_what_its_links_name(box: Box) -> None:
    await run(box, "sh", "-c", "mkdir keep t; echo x > keep/f; ln -s ../keep t")
    await box.remove_file("/sandbox/t", recursive=True)
    assert await content(box, "/sandbox/keep/f") == b"x\n"
    await run(box, "ln", "-s", "keep", "/sandbox/l")
    await box.remove_file("/sandbox/l", recursive=True)
    assert await names(box, "/sandbox") == ["keep"]


async def test_a_tree_deeper_than_any_path_can_name_is_removed(box: Box) -> None:
    code = "import os\nfor _ in range(60):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    assert (await box.run_code(code, RunOptions())).ok
    await box.remove_file("/sandbox/" + "d" * 200, recursive=True)
    assert await names(box, "/sandbox") == []


async def test_a_missing_file_is_an_error_that_names_it(box: Box) -> None:
    async def read() -> None:
        await content(box, "/sandbox/none")

    attempts = {
        "read": read(),
        "list": box.list_files("/sandbox/none"),
        "stat": box.stat_file("/sandbox/none"),
        "move": box.move_file("/sandbox/none", "/sandbox/other"),
        "remove": box.remove_file("/sandbox/none"),
    }
    for what, attempt in attempts.items():
        with pytest.raises(FileMissing) as missing:
            await attempt
        assert missing.value.filename == "/sandbox/none", what
    await box.remove_file("/sandbox/none", missing_ok=True)


@pytest.mark.parametrize("path", ["/sandbox", "/proc/self/fd/0", "/sandbox/pipe", "/dev/zero"])
async def test_only_regular_files_are_read_and_nothing_else_is_waited_for(
    box: Box, path: str
) -> None:
    await run(box, "mkfifo", "/sandbox/pipe")
    with anyio.fail_after(60), pytest.raises(FileFailed):
        await content(box, path)


@pytest.mark.parametrize("path", ["/dev/null/x", "/etc/passwd", "/proc/1/environ", "/new"])
async def test_a_request_reaches_no_further_than_its_tenant(box: Box, path: str) -> None:
    with pytest.raises(FileFailed):
        await box.write_file(path, b"x")


async def test_links_that_lead_outside_end_inside(box: Box, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    up = "/".join([".."] * 40)
    await run(box, "ln", "-s", f"{up}{secret}", "/sandbox/up")
    await run(box, "ln", "-s", str(secret), "/sandbox/absolute")
    await run(box, "ln", "-s", f"/proc/1/root{secret}", "/sandbox/root")
    for path in ("/sandbox/up", "/sandbox/absolute", "/sandbox/root", f"{up}{secret}"):
        with pytest.raises(FileFailed):
            await content(box, path)
    await box.write_file(f"/sandbox/{up}/sandbox/inside", b"x")
    assert await content(box, "/sandbox/inside") == b"x"


async def test_writing_through_a_link_writes_what_it_names(box: Box) -> None:
    await box.write_file("/sandbox/real", b"old")
    await run(box, "ln", "-s", "real", "/sandbox/link")
    await box.write_file("/sandbox/link", b"new")
    assert await content(box, "/sandbox/real") == b"new"
    assert (await box.stat_file("/sandbox/link", follow=False)).type == "symlink"


async def test_a_cancelled_upload_leaves_the_old_file_and_nothing_else(box: Box) -> None:
    await box.write_file("/sandbox/d/f", b"old")
    was_sent = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        was_sent.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(box.write_file, "/sandbox/d/f", endless())
        await was_sent.wait()
        assert len(await names(box, "/sandbox/d")) == 2, "the unfinished file has a name of its own"
        group.cancel_scope.cancel()
    assert await names(box, "/sandbox/d") == ["f"]
    assert await content(box, "/sandbox/d/f") == b"old"


async def test_an_upload_that_its_source_breaks_off_leaves_nothing(box: Box) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await box.write_file("/sandbox/f", breaks())
    assert await names(box, "/sandbox") == []


async def test_readers_see_the_old_file_or_the_new_one(box: Box) -> None:
    await box.write_file("/sandbox/f", b"a" * 300_000)
    stream = box.read_file("/sandbox/f")
    pieces = [await anext(stream)]
    await box.write_file("/sandbox/f", b"b" * 300_000)
    pieces += [piece async for piece in stream]
    assert b"".join(pieces) == b"a" * 300_000
    assert await content(box, "/sandbox/f") == b"b" * 300_000


async def test_a_full_disk_refuses_the_file_and_leaves_nothing_of_it(box: Box) -> None:
    most = (box.spec.limits.disk_mb - 2) << 20
    await run(box, "fallocate", "-l", str(most), "/sandbox/most")
    with pytest.raises(FileFailed) as full:
        await box.write_file("/sandbox/f", bytes(4 << 20))
    assert full.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert await names(box, "/sandbox") == ["most"]
    assert await box.write_file("/sandbox/f", bytes(1 << 20)) == 1 << 20
