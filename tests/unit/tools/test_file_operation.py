from __future__ import annotations

import base64
from typing import Any

import pytest

from sandpool.errors import InvalidToolArgument, SandboxDied
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import DirEntry, ExecutionStatus, ToolResult
from sandpool.testing import FakeBox
from sandpool.tools import FileOperation
from sandpool.tools.file_operation import listing

pytestmark = pytest.mark.anyio


async def do(
    sandbox: LocalSandbox, operation: str, path: str, settings: Any = None, **rest: str
) -> ToolResult:
    """Run one operation with a tool that has these settings."""
    arguments = {"operation": operation, "file_path": path, **rest}
    return await FileOperation(**(settings or {})).run(sandbox, arguments)


async def test_what_is_written_can_be_read(sandbox: LocalSandbox) -> None:
    written = await do(sandbox, "write", "deep/er/a.txt", content="käse\n")
    assert written.output == "File written successfully: deep/er/a.txt"
    read = await do(sandbox, "read", "deep/er/a.txt")
    assert (read.success, read.output, read.error) == (True, "käse\n", None)
    assert read.execution_time is not None


async def test_create_without_content_makes_an_empty_file(sandbox: LocalSandbox) -> None:
    assert (await do(sandbox, "create", "a")).output == "File written successfully: a"
    assert (await do(sandbox, "read", "a")).output == ""
    assert (await do(sandbox, "create", "b", content="x")).success
    assert (await do(sandbox, "read", "b")).output == "x"


async def test_exists_says_which(sandbox: LocalSandbox) -> None:
    assert (await do(sandbox, "exists", "a")).output == "does not exist"
    await do(sandbox, "create", "a")
    assert (await do(sandbox, "exists", "a")).output == "exists"


async def test_delete_takes_whole_trees(sandbox: LocalSandbox) -> None:
    await do(sandbox, "create", "tree/a/b")
    assert (await do(sandbox, "delete", "tree")).output == "Successfully deleted: tree"
    assert (await do(sandbox, "exists", "tree")).output == "does not exist"


async def test_list_looks_like_ls(sandbox: LocalSandbox) -> None:
    await do(sandbox, "write", "d/a", content="xyz")
    await do(sandbox, "create", "d/sub/b")
    lines = str((await do(sandbox, "list", "d")).output).splitlines()
    assert lines[0] == "total 2"
    assert lines[1].startswith("-rw-")
    assert lines[1].endswith(" a")
    assert " 3 " in lines[1]
    assert lines[2].startswith("drwx")
    assert lines[2].endswith(" sub")


@pytest.mark.parametrize("operation", ["read", "delete", "list"])
async def test_what_is_not_there_is_an_error(sandbox: LocalSandbox, operation: str) -> None:
    result = await do(sandbox, operation, "nothing")
    assert result.status is ExecutionStatus.ERROR
    assert result.error == "nothing: No such file or directory"


@pytest.mark.parametrize("path", ["it's", 'a "b"', "a b\nc", "$(echo x)", "-rf", "*", "`x`", "ä"])
async def test_a_path_is_taken_literally(sandbox: LocalSandbox, path: str) -> None:
    assert (await do(sandbox, "write", path, content=path)).success
    assert (await do(sandbox, "read", path)).output == path
    names = str((await do(sandbox, "list", ".")).output)
    assert path in names


async def test_base64_moves_any_bytes(sandbox: LocalSandbox) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    assert (await do(sandbox, "write", "a", content=data, encoding="base64")).success
    assert (await do(sandbox, "read", "a", encoding="base64")).output == data
    text = await do(sandbox, "read", "a")
    assert text.error == "The file is not utf-8 text; read it with encoding='base64'"


async def test_another_encoding_is_used(sandbox: LocalSandbox) -> None:
    await do(sandbox, "write", "a", content="ä", encoding="latin-1")
    assert (await do(sandbox, "read", "a", encoding="base64")).output == "5A=="
    assert (await do(sandbox, "read", "a", encoding="latin-1")).output == "ä"


@pytest.mark.parametrize("encoding", ["no-such", "rot13", "zlib"])
async def test_an_encoding_that_is_none_of_text_is_refused(
    fake: LocalSandbox, encoding: str
) -> None:
    for operation in ("write", "read"):
        await do(fake, "create", "a")
        with pytest.raises(InvalidToolArgument, match="encoding"):
            await do(fake, operation, "a", content="x", encoding=encoding)


async def test_content_that_does_not_fit_its_encoding_is_an_error(fake: LocalSandbox) -> None:
    ascii_ = await do(fake, "write", "a", content="ä", encoding="ascii")
    assert ascii_.error == "The content cannot be written as ascii"
    assert (await do(fake, "write", "a", content="?", encoding="base64")).error == (
        "The content is not base64"
    )
    assert (await do(fake, "exists", "a")).output == "does not exist"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"operation": "read", "file_path": ""}, "No file path provided"),
        ({"operation": "write", "file_path": "a"}, "Content is required for write operation"),
        ({"operation": "chmod", "file_path": "a"}, "Unknown operation: chmod"),
    ],
)
async def test_what_makes_no_sense_is_an_error(
    fake: LocalSandbox, arguments: dict[str, str], error: str
) -> None:
    result = await FileOperation().run(fake, arguments)
    assert (result.status, result.error) == (ExecutionStatus.ERROR, error)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"operation": "read"}, "file_path"),
        ({"file_path": "a"}, "operation"),
        ({"operation": "read", "file_path": 1}, "file_path"),
        ({"operation": "read", "path": "a"}, "path"),
        ({"operation": "write", "file_path": "a", "content": b"x"}, "content"),
    ],
)
async def test_a_bad_argument_is_named(
    fake: LocalSandbox, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidToolArgument, match=f"'{name}'"):
        await FileOperation().run(fake, arguments)


async def test_a_dead_sandbox_is_not_the_files_fault(fake: LocalSandbox) -> None:
    box = fake.box
    assert isinstance(box, FakeBox)
    box.die()
    with pytest.raises(SandboxDied):
        await do(fake, "read", "a")


# Settings.


async def test_a_file_past_its_size_is_neither_written_nor_read(sandbox: LocalSandbox) -> None:
    settings = {"max_file_size": 4}
    assert (await do(sandbox, "write", "a", settings, content="1234")).success
    too_large = await do(sandbox, "write", "a", settings, content="ääk")
    assert too_large.error == "a is larger than the limit of 4 bytes"
    assert (await do(sandbox, "read", "a", settings)).output == "1234"
    await do(sandbox, "write", "b", content="12345")
    assert (await do(sandbox, "read", "b", settings)).error == too_large.error.replace("a", "b", 1)


async def test_only_allowed_paths_are_touched(sandbox: LocalSandbox) -> None:
    settings = {"allowed_paths": ["/sandbox/in"]}
    await do(sandbox, "write", "out.txt", content="secret")
    assert (await do(sandbox, "write", "/sandbox/in/a", settings, content="x")).success
    assert (await do(sandbox, "read", "in/a", settings)).output == "x"
    for path in (
        "/sandbox/out.txt",
        "out.txt",
        "in/../out.txt",
        "/sandbox/in/../../sandbox/out.txt",
    ):
        for operation in ("read", "write", "create", "delete", "list", "exists"):
            result = await do(sandbox, operation, path, settings, content="x")
            assert result.error == "Path /sandbox/out.txt is not allowed"
            assert result.metadata == {"refused": True}
    assert (await do(sandbox, "read", "out.txt")).output == "secret"


async def test_a_relative_path_of_the_policy_starts_at_the_working_directory(
    sandbox: LocalSandbox,
) -> None:
    settings = {"allowed_paths": ["in"]}
    assert (await do(sandbox, "create", "/sandbox/in/a", settings)).success
    assert not (await do(sandbox, "create", "/sandbox/a", settings)).success


async def test_blocked_paths_are_not_touched_nor_deleted_with_what_is_above(
    sandbox: LocalSandbox,
) -> None:
    settings = {"blocked_paths": ["/sandbox/d/secret"]}
    await do(sandbox, "write", "d/secret/a", content="secret")
    assert (await do(sandbox, "create", "d/b", settings)).success
    assert not (await do(sandbox, "read", "d/./secret//a", settings)).success
    assert not (await do(sandbox, "list", "d/secret", settings)).success
    assert not (await do(sandbox, "delete", "d", settings)).success
    assert not (await do(sandbox, "delete", ".", settings)).success
    assert (await do(sandbox, "read", "d/secret/a")).output == "secret"
    assert (await do(sandbox, "delete", "d/b", settings)).success


async def test_only_allowed_extensions_are_touched(sandbox: LocalSandbox) -> None:
    settings = {"allowed_extensions": [".txt"]}
    assert (await do(sandbox, "write", "a.txt", settings, content="x")).success
    for operation in ("write", "create", "read", "delete"):
        result = await do(sandbox, operation, "a.py", settings, content="x")
        assert result.error == "Extension of /sandbox/a.py is not allowed"
    assert "a.txt" in str((await do(sandbox, "list", ".", settings)).output)
    assert (await do(sandbox, "exists", "a.py", settings)).output == "does not exist"


async def test_a_link_out_of_an_allowed_directory_leads_nowhere(native: LocalSandbox) -> None:
    await native.run_code(
        "import os\n"
        "os.mkdir('in'); os.mkdir('out')\n"
        "open('out/secret', 'w').write('secret')\n"
        "os.symlink('/sandbox/out', 'in/dir')\n"
        "os.symlink('../out/secret', 'in/file')\n"
        "os.symlink('../out/new', 'in/new')\n"
        "os.symlink('file', 'in/again')\n"
    )
    settings = {"allowed_paths": ["/sandbox/in"]}
    for path in ("in/dir/secret", "in/file", "in/again", "/proc/self/cwd/out/secret"):
        for operation in ("read", "write", "exists"):
            assert not (await do(native, operation, path, settings, content="x")).success
    for path in ("in/new", "in/dir/new"):
        assert not (await do(native, "create", path, settings)).success
    assert (await do(native, "read", "out/secret")).output == "secret"


async def test_deleting_a_link_deletes_the_link(native: LocalSandbox) -> None:
    await native.run_code(
        "import os\n"
        "os.mkdir('in'); os.mkdir('out')\n"
        "open('out/secret', 'w').write('secret')\n"
        "os.symlink('/sandbox/out', 'in/dir')\n"
    )
    settings = {"allowed_paths": ["/sandbox/in"]}
    assert not (await do(native, "delete", "in/dir/secret", settings)).success
    assert (await do(native, "delete", "in/dir", settings)).success
    assert (await do(native, "exists", "in/dir")).output == "does not exist"
    assert (await do(native, "read", "out/secret")).output == "secret"


async def test_a_policy_named_by_a_link_holds_for_what_it_leads_to(native: LocalSandbox) -> None:
    await native.run_code(
        "import os\nos.mkdir('real')\nos.symlink('real', 'link')\nopen('real/a', 'w').write('x')\n"
    )
    assert (await do(native, "read", "real/a", {"allowed_paths": ["link"]})).output == "x"
    assert (await do(native, "read", "link/a", {"allowed_paths": ["link"]})).output == "x"
    assert not (await do(native, "read", "real/a", {"blocked_paths": ["link"]})).success


async def test_a_link_does_not_lend_its_extension(native: LocalSandbox) -> None:
    await native.run_code("import os\nopen('a.key', 'w').write('x')\nos.symlink('a.key', 'a.txt')")
    assert not (await do(native, "read", "a.txt", {"allowed_extensions": ["txt"]})).success


async def test_what_a_tenant_left_cannot_change_how_paths_are_checked(native: LocalSandbox) -> None:
    for name in ("os.py", "posixpath.py", "sitecustomize.py"):
        await native.run_code(f"open({name!r}, 'w').write('raise SystemExit')")
    assert not (await do(native, "read", "/etc/passwd", {"allowed_paths": ["/sandbox"]})).success
    assert (await do(native, "create", "a", {"allowed_paths": ["/sandbox"]})).success


@pytest.mark.parametrize("path", ["/dev/zero", "fifo"])
async def test_what_never_ends_is_not_read(native: LocalSandbox, path: str) -> None:
    await native.run_code("import os\nos.mkfifo('fifo')")
    result = await do(native, "read", path, {"timeout": 2})
    assert result.status in (ExecutionStatus.ERROR, ExecutionStatus.TIMEOUT)


def test_a_long_listing_is_cut_between_lines() -> None:
    entry = DirEntry(
        name="n", path="/n", type="symlink", size=1, mode=0o777, mtime=0.0, target="/t"
    )
    line = "lrwxrwxrwx 1 1970-01-01 00:00 n -> /t"
    assert listing([entry], 1_000) == (f"total 1\n{line}", False)
    assert listing([entry] * 3, 60) == (f"total 3\n{line}", True)
