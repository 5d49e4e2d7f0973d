"""A container that runs is held to other limits by its engine and its guest, or says why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandpool.backends.base import Box, BoxSpec, Limits, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.errors import InvalidSpec, SandboxDied, Unsupported
from tests.greedy import FORK, HOARD

from .conftest import SPEC, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

BEGUN = Limits(memory_mb=256, pids=32, disk_mb=16, inodes=600, open_files=64)
PROBE = RunOptions(timeout=30)
HARD = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"


@pytest.fixture
async def box(backend: DockerBackend) -> Box:
    spec = BoxSpec(image=SPEC.image, limits=BEGUN)
    return await backend.create(spec, box_id="begun")


async def _printed(box: Box, code: str) -> int:
    result = await box.run_code(code, PROBE)
    assert result.exit_code == 0, result.stderr
    return int(result.stdout)


async def test_a_lowered_memory_limit_holds(box: Box) -> None:
    assert await _printed(box, HOARD.format(128)) == 128
    await box.set_limits(replace(BEGUN, memory_mb=64))
    try:
        result = await box.run_code(HOARD.format(128), PROBE)
    except SandboxDied as died:
        assert died.reason == "oom"
    else:
        assert result.signal == 9


async def test_a_raised_memory_limit_gives_room_and_no_swap(box: Box) -> None:
    await box.set_limits(replace(BEGUN, memory_mb=700))
    assert await _printed(box, HOARD.format(512)) == 512
    shown = docker("inspect", "--format", "{{.HostConfig.MemorySwap}}", "sandbox-begun")
    assert int(shown) == 700 << 20


async def test_less_memory_than_is_used_is_refused_and_the_old_limits_hold(box: Box) -> None:
    hoard = await box.start_code(
        "x = bytearray(100 << 20); print(1, flush=True); input()", RunOptions(stdin=None)
    )
    async for _ in hoard:
        break
    with pytest.raises(InvalidSpec, match="already"):
        await box.set_limits(replace(BEGUN, memory_mb=32, open_files=32))
    await hoard.send_eof()
    await hoard.wait()
    assert await _printed(box, HOARD.format(128)) == 128
    assert await _printed(box, HARD) == 64


@pytest.mark.parametrize("pids", [12, 64])
async def test_the_number_of_processes_can_be_lowered_and_raised(box: Box, pids: int) -> None:
    await box.set_limits(replace(BEGUN, pids=pids))
    assert pids - 8 < await _printed(box, FORK) < pids


async def test_processor_time_can_be_changed(box: Box) -> None:
    await box.set_limits(replace(BEGUN, cpus=0.5))
    shown = docker("inspect", "--format", "{{.HostConfig.NanoCpus}}", "sandbox-begun")
    assert int(shown) == 500_000_000


@pytest.mark.parametrize("files", [20, 500])
async def test_open_files_can_be_lowered_and_raised(box: Box, files: int) -> None:
    await box.set_limits(replace(BEGUN, open_files=files))
    assert await _printed(box, HARD) == files  # it was forked before
    assert await _printed(box, HARD) == files


@pytest.mark.parametrize(
    "wanted",
    [
        replace(BEGUN, disk_mb=8, open_files=32),
        replace(BEGUN, inodes=100, open_files=32),
        replace(BEGUN, open_files=1 << 40),
        replace(BEGUN, cpus=1000, open_files=32),
    ],
)
async def test_what_the_engine_cannot_change_is_refused_and_the_old_limits_hold(
    box: Box, wanted: Limits
) -> None:
    with pytest.raises(Unsupported, match="limits"):
        await box.set_limits(wanted)
    assert await _printed(box, HARD) == 64


async def test_a_sandbox_whose_limits_were_changed_is_not_reset(box: Box) -> None:
    await box.reset()
    await box.set_limits(replace(BEGUN, open_files=32))
    with pytest.raises(Unsupported, match="make a new one"):
        await box.reset()
