"""Templates and sandboxes come, go and fail, and nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from sandpool.backends.base import BoxSpec, Limits, RunOptions
from sandpool.backends.native import NativeBackend, template_handle
from sandpool.errors import CreateFailed, ImageNotFound, InvalidSpec, SandboxDied, Unsupported
from tests.leaks import census

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
async def backend() -> AsyncIterator[NativeBackend]:
    """Start templates of the test's own: they are what it is about."""
    gc.collect()
    before = census.take()
    backend = NativeBackend()
    yield backend
    await backend.aclose()
    assert census.settle(before) == before


async def test_a_destroyed_sandbox_has_no_process_left(backend: NativeBackend) -> None:
    await backend.prepare(BoxSpec())
    before = census.descendants(os.getpid())
    box = await backend.create(BoxSpec(), box_id="gone")
    await box.run_code("import subprocess; subprocess.Popen(['sleep', '100'])", RunOptions())
    assert len(census.descendants(os.getpid()) - before) >= 2
    await box.destroy()
    assert census.descendants(os.getpid()) == before
    with pytest.raises(SandboxDied):
        await box.ping()
    await box.destroy()


async def test_a_killed_guest_is_reported_and_hurts_nobody_else(backend: NativeBackend) -> None:
    await backend.prepare(BoxSpec())
    before = census.descendants(os.getpid())
    victim = await backend.create(BoxSpec(), box_id="victim")
    # The guest is the parent of its spare interpreter, so it has the lower id.
    pid = min(census.descendants(os.getpid()) - before)
    other = await backend.create(BoxSpec(), box_id="other")
    told: list[SandboxDied] = []
    victim.on_death(told.append)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(SandboxDied):
        await victim.run_code("print(1)", RunOptions())
    assert [died.reason for died in told] == ["killed"]
    assert (await other.run_code("print(1)", RunOptions())).stdout == "1\n"


async def test_a_killed_template_takes_its_sandboxes_along_and_is_replaced(
    backend: NativeBackend,
) -> None:
    before = census.descendants(os.getpid())
    boxes = [await backend.create(BoxSpec(), box_id=f"b{n}") for n in range(3)]
    for pid in census.descendants(os.getpid()) - before:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for box in boxes:
        with pytest.raises(SandboxDied):
            await box.run_code("print(1)", RunOptions())
        await box.destroy()
    fresh = await backend.create(BoxSpec(), box_id="fresh")
    assert (await fresh.run_code("print(1)", RunOptions())).stdout == "1\n"


async def test_what_is_preloaded_is_imported_already(backend: NativeBackend) -> None:
    box = await backend.create(BoxSpec(preload=("decimal", "json.tool")), box_id="p")
    result = await box.run_code(
        "import sys; print('decimal' in sys.modules, 'json.tool' in sys.modules)", RunOptions()
    )
    assert result.stdout == "True True\n"


@pytest.mark.parametrize("name", ["no_such_module", "this.is.not.there"])
async def test_a_preload_that_cannot_be_imported_is_refused(
    backend: NativeBackend, name: str
) -> None:
    with pytest.raises(InvalidSpec, match=name.split(".")[0]):
        await backend.create(BoxSpec(preload=(name,)), box_id="x")


async def test_an_unknown_image_is_refused(backend: NativeBackend) -> None:
    with pytest.raises(ImageNotFound):
        await backend.create(BoxSpec(image="no-such-image"), box_id="x")


@pytest.mark.parametrize("place", ["/workshop", "/data/deep/down", "/tmp/below", "/home/sandbox/x"])
async def test_runs_start_in_the_working_directory(backend: NativeBackend, place: str) -> None:
    box = await backend.create(BoxSpec(working_dir=place), box_id="w")
    result = await box.exec(RunOptions(argv=("sh", "-c", "pwd; touch here && ls")))
    assert result.stdout == f"{place}\nhere\n", result.stderr


async def test_creations_side_by_side_share_one_template(backend: NativeBackend) -> None:
    before = census.descendants(os.getpid())
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create_one, backend, number)
    # The process that waits, the template, and eight guests with a spare interpreter each.
    assert len(census.descendants(os.getpid()) - before) == 18


async def create_one(backend: NativeBackend, number: int) -> None:
    await backend.create(BoxSpec(), box_id=f"n{number}")


async def test_a_creation_cancelled_at_any_moment_leaves_nothing(backend: NativeBackend) -> None:
    await backend.prepare(BoxSpec())
    before = census.descendants(os.getpid())
    for step in range(24):
        with anyio.move_on_after(step * 0.0008):
            box = await backend.create(BoxSpec(), box_id=f"c{step}")
            await box.destroy()
    assert census.until(lambda: census.descendants(os.getpid()) == before, 30)
    box = await backend.create(BoxSpec(), box_id="after")
    assert (await box.run_code("print(1)", RunOptions())).stdout == "1\n"


async def test_a_closed_backend_can_be_used_again(backend: NativeBackend) -> None:
    await backend.create(BoxSpec(), box_id="one")
    await backend.aclose()
    box = await backend.create(BoxSpec(), box_id="two")
    assert (await box.run_code("print(1)", RunOptions())).stdout == "1\n"


def test_a_sandbox_outlives_the_event_loop_it_was_made_on() -> None:
    gc.collect()
    before = census.take()
    backend = NativeBackend()
    box = asyncio.run(backend.create(BoxSpec(), box_id="old"))
    result = asyncio.run(box.run_code("print(1)", RunOptions()))
    assert result.stdout == "1\n"
    asyncio.run(box.destroy())
    asyncio.run(backend.aclose())
    assert census.settle(before) == before


def _copy_program(root: Path, program: str) -> None:
    """Copy a program and the libraries that it is linked with."""
    found = shutil.which(program)
    assert found is not None
    listing = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listing.split() if word.startswith("/")]
    for path in (found, *libraries):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)


@pytest.fixture
def bare_image(tmp_path: Path) -> Path:
    root = tmp_path / "bare"
    (root / "etc").mkdir(parents=True)
    (root / "usr").mkdir()
    for program in ("sh", "cat", "id"):
        _copy_program(root, program)
    (root / "etc/os-release").write_text("NAME=bare\n")
    root.chmod(0o755)
    tmp_path.chmod(0o755)
    return root


async def test_a_directory_without_python_runs_commands_and_says_so_of_code(
    backend: NativeBackend, bare_image: Path
) -> None:
    box = await backend.create(BoxSpec(image=str(bare_image)), box_id="bare")
    result = await box.exec(RunOptions(argv=("cat", "/etc/os-release")))
    assert result.stdout == "NAME=bare\n", result.stderr
    who = await box.exec(RunOptions(argv=("sh", "-c", "id -un; echo x > /sandbox/y; cat y")))
    assert who.stdout == "sandbox\nx\n", who.stderr
    assert await box.write_file("/tmp/a/b", b"data") == 4
    with pytest.raises(Unsupported):
        await box.run_code("print(1)", RunOptions())


async def test_a_directory_with_python_runs_its_own(
    backend: NativeBackend, bare_image: Path
) -> None:
    python = Path("/usr/bin/python3.11")
    if not python.exists():
        pytest.skip("this host has no /usr/bin/python3.11 to make an image from")
    _copy_program(bare_image, str(python))
    shutil.copytree(
        "/usr/lib/python3.11",
        bare_image / "usr/lib/python3.11",
        ignore=shutil.ignore_patterns("test", "__pycache__", "idlelib", "tkinter", "config-*"),
    )
    for library in ("libffi.so.8", "libz.so.1", "libexpat.so.1"):
        for source in Path("/").glob(f"usr/lib/*/{library}"):
            target = bare_image / str(source).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (bare_image / "usr/bin/python3").symlink_to("python3.11")
    box = await backend.create(BoxSpec(image=str(bare_image)), box_id="image")
    result = await box.run_code("import sys, os; print(sys.prefix, os.listdir('/'))", RunOptions())
    assert result.stdout.startswith("/usr ["), result.stderr


async def test_a_spec_that_cannot_be_made_leaves_nothing(backend: NativeBackend) -> None:
    before = census.take()
    for spec in (BoxSpec(preload=("nope",)), BoxSpec(image="/nope"), BoxSpec(working_dir="/etc")):
        with pytest.raises((InvalidSpec, ImageNotFound, CreateFailed)):
            await backend.create(spec, box_id="x")
    assert census.descendants(os.getpid()) == before.descendants


async def test_a_template_that_forgets_kinds_of_sandboxes_is_told_them_again(
    backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_handle, "_MOST_KINDS", 2)
    code = "import os; print(os.statvfs('/tmp').f_files)"
    for turn in range(2):
        for inodes in (300, 400, 500):
            spec = BoxSpec(limits=Limits(inodes=inodes))
            box = await backend.create(spec, box_id=f"box-{turn}-{inodes}")
            assert (await box.run_code(code, RunOptions())).stdout == f"{inodes}\n"


async def test_a_sandbox_s_environment_is_not_another_s(backend: NativeBackend) -> None:
    code = "import os; print(os.environ.get('MINE'), os.uname().nodename)"
    one = await backend.create(BoxSpec(env={"MINE": "one"}), box_id="one")
    other = await backend.create(BoxSpec(), box_id="other")
    assert (await one.run_code(code, RunOptions())).stdout == "one sandbox\n"
    assert (await other.run_code(code, RunOptions())).stdout == "None sandbox\n"
