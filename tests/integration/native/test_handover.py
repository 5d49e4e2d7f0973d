"""Limits that a warm sandbox is given at its hand-over hold, or are refused for what they are."""

from __future__ import annotations

import random
import resource
from dataclasses import replace

import anyio
import pytest

from sandpool.backends.base import Backend, Box, BoxSpec, Limits, RunOptions
from sandpool.backends.native.cgroups import find
from sandpool.errors import InvalidSpec, SandboxDied, Unsupported
from tests.greedy import FILL, FORK, HOARD, LITTER, OPEN

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

BEGUN = Limits(memory_mb=256, pids=32, disk_mb=16, inodes=600, open_files=64)
RAISE = """
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))
    print('raised')
except ValueError:
    print(hard)
"""
HIGHEST = """
import os
found = [0]
for pid in filter(str.isdigit, os.listdir('/proc')):
    if pid != '1':
        line = next(l for l in open(f'/proc/{pid}/limits') if l.startswith('Max open files'))
        found.append(int(line.split()[4]))
print(max(found))
"""
"""The highest limit of open files that any process has but the guest."""
HELD = """
import os, resource
room = os.statvfs('/tmp')
print(room.f_blocks * room.f_frsize >> 20, room.f_files,
      resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""


def _needs(controller: str) -> None:
    if controller not in find().controllers:
        pytest.skip(f"this host lets us make no cgroup with {controller}")


async def _begun(backend: Backend) -> Box:
    return await backend.create(BoxSpec(limits=BEGUN), box_id="begun")


async def _printed(box: Box, code: str) -> int:
    result = await box.run_code(code, RunOptions(timeout=20))
    assert result.exit_code == 0, result.stderr
    return int(result.stdout)


async def test_a_lowered_memory_limit_holds(backend: Backend) -> None:
    _needs("memory")
    box = await _begun(backend)
    assert await _printed(box, HOARD.format(128)) == 128
    await box.set_limits(replace(BEGUN, memory_mb=64))
    try:
        result = await box.run_code(HOARD.format(128), RunOptions(timeout=20))
    except SandboxDied as died:
        assert died.reason == "oom"
    else:
        assert result.oom_killed


async def test_a_raised_memory_limit_gives_room(backend: Backend) -> None:
    _needs("memory")
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, memory_mb=700))
    assert await _printed(box, HOARD.format(512)) == 512


async def test_a_slot_has_the_next_sandboxs_limits_and_not_the_last_tenants(
    backend: Backend,
) -> None:
    _needs("memory")
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, memory_mb=32, pids=8))
    await box.destroy()
    again = await backend.create(BoxSpec(limits=BEGUN), box_id="again")
    assert await _printed(again, HOARD.format(128)) == 128


async def test_less_memory_than_is_used_is_refused_and_the_old_limit_holds(
    backend: Backend,
) -> None:
    _needs("memory")
    box = await _begun(backend)
    hoard = await box.start_code(
        "x = bytearray(100 << 20); print(1, flush=True); input()", RunOptions(stdin=None)
    )
    async for _ in hoard:
        break
    with pytest.raises(InvalidSpec, match="already"):
        await box.set_limits(replace(BEGUN, memory_mb=32))
    await hoard.send_eof()
    await hoard.wait()
    assert await _printed(box, HOARD.format(128)) == 128


@pytest.mark.parametrize("pids", [12, 64])
async def test_the_number_of_processes_can_be_lowered_and_raised(
    backend: Backend, pids: int
) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, pids=pids))
    made = await _printed(box, FORK)
    assert pids - 6 < made < pids


async def test_the_disk_can_be_lowered(backend: Backend) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, disk_mb=4))
    assert await _printed(box, FILL) <= 4


async def test_the_disk_can_be_raised(backend: Backend) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, disk_mb=40))
    assert 36 <= await _printed(box, FILL) <= 40


async def test_less_disk_than_is_used_is_refused(backend: Backend) -> None:
    box = await _begun(backend)
    await box.write_file("/tmp/f", bytes(8 << 20))
    with pytest.raises(InvalidSpec, match="disk_mb"):
        await box.set_limits(replace(BEGUN, disk_mb=4))
    assert (await box.stat_file("/tmp/f")).size == 8 << 20


@pytest.mark.parametrize("inodes", [100, 1500])
async def test_the_number_of_files_can_be_lowered_and_raised(backend: Backend, inodes: int) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, inodes=inodes))
    assert inodes - 50 < await _printed(box, LITTER) < inodes


async def test_fewer_files_than_there_are_is_refused_and_nothing_is_changed(
    backend: Backend,
) -> None:
    box = await _begun(backend)
    held = await box.run_code(HELD, RunOptions())
    await box.exec(RunOptions(argv=("sh", "-c", "touch $(seq 200)"), cwd="/sandbox"))
    with pytest.raises(InvalidSpec, match="inodes"):
        await box.set_limits(replace(BEGUN, disk_mb=8, inodes=100, open_files=32))
    assert (await box.run_code(HELD, RunOptions())).stdout == held.stdout
    assert len(await box.list_files("/sandbox")) == 200


@pytest.mark.parametrize("files", [20, 500])
async def test_every_process_has_the_changed_limit_of_open_files(
    backend: Backend, files: int
) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, open_files=files))
    assert await _printed(box, OPEN) == files  # it was forked before
    assert await _printed(box, OPEN) == files
    command = RunOptions(argv=("python3", "-c", OPEN))
    assert (await box.exec(command)).stdout == f"{files}\n"
    terminal = await box.open_pty(command, rows=9, cols=80)
    assert (await terminal.wait()).stdout.strip() == str(files)
    context = await box.open_context(env={}, cwd=None)
    cell = await box.run_in_context(context, OPEN, timeout=20, max_output=None)
    assert cell.stdout == f"{files}\n"


@pytest.mark.parametrize("files", [20, 500])
async def test_no_process_of_a_tenants_may_have_more_open_files(
    backend: Backend, files: int
) -> None:
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, open_files=files))
    # By a command, so that what was forked ahead for code is there still.
    highest = RunOptions(argv=("python3", "-c", HIGHEST))
    with anyio.fail_after(60):
        # One that is being forked has the guest's limits until it has given up its rights.
        while (await box.exec(highest)).stdout != f"{files}\n":
            pass
    assert await _printed(box, RAISE) == files


async def test_more_open_files_than_the_host_allows_are_refused(backend: Backend) -> None:
    box = await _begun(backend)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with pytest.raises(Unsupported, match=f"over {most} here"):
        await box.set_limits(replace(BEGUN, open_files=most + 1, disk_mb=4))
    assert (await box.run_code(HELD, RunOptions())).stdout == "16 600 64\n"
    await box.set_limits(replace(BEGUN, open_files=most))
    assert await _printed(box, RAISE) == most


@pytest.mark.parametrize(
    "impossible",
    [
        replace(BEGUN, inodes=0),
        replace(BEGUN, inodes=63),
        replace(BEGUN, open_files=15),
        replace(BEGUN, open_files=-1),
        replace(BEGUN, disk_mb=0),
        replace(BEGUN, memory_mb=0),
        replace(BEGUN, pids=0),
        replace(BEGUN, cpus=-1),
    ],
)
async def test_a_limit_under_which_nothing_can_live_is_refused_and_nothing_is_changed(
    backend: Backend, impossible: Limits
) -> None:
    box = await _begun(backend)
    with pytest.raises(InvalidSpec):
        await box.set_limits(impossible)
    assert (await box.run_code(HELD, RunOptions())).stdout == "16 600 64\n"


async def test_whatever_is_asked_for_in_turn_holds_or_nothing_of_it_does(
    backend: Backend,
) -> None:
    box = await _begun(backend)
    await box.exec(RunOptions(argv=("sh", "-c", "touch $(seq 90); head -c 2M /dev/zero > f")))
    wishes = random.Random(3)
    held = BEGUN
    outcomes = set[bool]()
    for _ in range(40):
        wanted = replace(
            held,
            disk_mb=wishes.randint(1, 8),
            inodes=wishes.randint(60, 400),
            open_files=wishes.randint(12, 99),
        )
        try:
            await box.set_limits(wanted)
            held = wanted
        except InvalidSpec:
            outcomes.add(False)
        else:
            outcomes.add(True)
        # By a command: for code the guest itself needs room, and may have none left.
        printed = await box.exec(RunOptions(argv=("python3", "-c", HELD)))
        assert printed.stdout == f"{held.disk_mb} {held.inodes} {held.open_files}\n"
    assert outcomes == {True, False}


async def test_memory_is_held_for_each_process_where_no_cgroup_holds_it(backend: Backend) -> None:
    if "memory" in find().controllers:
        pytest.skip("here a cgroup holds memory")
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, memory_mb=64))
    assert "MemoryError" in (await box.run_code(HOARD.format(128), RunOptions())).stderr
    await box.set_limits(replace(BEGUN, memory_mb=700))
    assert await _printed(box, HOARD.format(512)) == 512


async def test_what_nothing_holds_is_refused_instead_of_ignored(backend: Backend) -> None:
    if "cpu" in find().controllers:
        pytest.skip("here a cgroup holds processor time")
    box = await _begun(backend)
    with pytest.raises(Unsupported, match="limits: cpus"):
        await box.set_limits(replace(BEGUN, cpus=0.5, open_files=32))
    assert (await box.run_code(HELD, RunOptions())).stdout == "16 600 64\n"


async def test_processor_time_is_changed_by_quota_and_by_share(backend: Backend) -> None:
    _needs("cpu")
    box = await _begun(backend)
    await box.set_limits(replace(BEGUN, cpus=0.2))
    spin = (
        "import time\nstart, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() - start < 1: pass\n"
        "print(int((time.process_time() - used) * 10))"
    )
    assert await _printed(box, spin) < 6


async def test_a_dead_sandbox_has_no_limits_to_change(backend: Backend) -> None:
    box = await _begun(backend)
    await box.destroy()
    with pytest.raises(SandboxDied):
        await box.set_limits(replace(BEGUN, disk_mb=4))
