"""Limits that a warm sandbox is given at its hand-over hold, or are refused for what they are."""

from __future__ import annotations

import pytest

from sandpool.backends.base import Backend, Box, BoxSpec, Limits, RunOptions
from sandpool.backends.native.cgroups import find
from sandpool.errors import InvalidSpec, SandboxDied, Unsupported

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

BEGUN = Limits(memory_mb=256, pids=32, disk_mb=16)
HOARD = "x = bytearray({} << 20); print(len(x) >> 20)"
FORK = """
import os
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            import time; time.sleep(60)
        made += 1
except OSError:
    pass
print(made)
"""
FILL = """
written = 0
try:
    with open('/tmp/fill', 'wb', buffering=0) as file:
        while written < 64 << 20: written += file.write(bytes(1 << 20))
except OSError:
    pass
print(written >> 20)
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
    await box.set_limits(Limits(memory_mb=64, pids=32, disk_mb=16))
    try:
        result = await box.run_code(HOARD.format(128), RunOptions(timeout=20))
    except SandboxDied as died:
        assert died.reason == "oom"
    else:
        assert result.oom_killed


async def test_a_raised_memory_limit_gives_room(backend: Backend) -> None:
    _needs("memory")
    box = await _begun(backend)
    await box.set_limits(Limits(memory_mb=700, pids=32, disk_mb=16))
    assert await _printed(box, HOARD.format(512)) == 512


async def test_a_slot_has_the_next_sandboxs_limits_and_not_the_last_tenants(
    backend: Backend,
) -> None:
    _needs("memory")
    box = await _begun(backend)
    await box.set_limits(Limits(memory_mb=32, pids=8, disk_mb=16))
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
        await box.set_limits(Limits(memory_mb=32, pids=32, disk_mb=16))
    await hoard.send_eof()
    await hoard.wait()
    assert await _printed(box, HOARD.format(128)) == 128


@pytest.mark.parametrize("pids", [12, 64])
async def test_the_number_of_processes_can_be_lowered_and_raised(
    backend: Backend, pids: int
) -> None:
    _needs("pids")
    box = await _begun(backend)
    await box.set_limits(Limits(memory_mb=256, pids=pids, disk_mb=16))
    made = await _printed(box, FORK)
    assert pids - 6 < made < pids


async def test_the_disk_can_be_lowered(backend: Backend) -> None:
    box = await _begun(backend)
    await box.set_limits(Limits(memory_mb=256, pids=32, disk_mb=4))
    assert await _printed(box, FILL) <= 4


async def test_the_disk_can_be_raised_where_rlimits_do_not_hold_it(backend: Backend) -> None:
    _needs("memory")
    box = await _begun(backend)
    await box.set_limits(Limits(memory_mb=256, pids=32, disk_mb=40))
    assert 36 <= await _printed(box, FILL) <= 40


async def test_less_disk_than_is_used_is_refused(backend: Backend) -> None:
    box = await _begun(backend)
    await box.write_file("/tmp/f", bytes(8 << 20))
    with pytest.raises(InvalidSpec, match="disk_mb"):
        await box.set_limits(Limits(memory_mb=256, pids=32, disk_mb=4))
    assert (await box.stat_file("/tmp/f")).size == 8 << 20


@pytest.mark.parametrize(
    ("controller", "wanted"),
    [
        ("memory", Limits(memory_mb=64, pids=32, disk_mb=16)),
        ("cpu", Limits(memory_mb=256, pids=32, disk_mb=16, cpus=0.5)),
        ("pids", Limits(memory_mb=256, pids=16, disk_mb=16)),
        ("memory", Limits(memory_mb=256, pids=32, disk_mb=32)),
    ],
)
async def test_what_only_rlimits_hold_is_refused_instead_of_ignored(
    backend: Backend, controller: str, wanted: Limits
) -> None:
    if controller in find().controllers:
        pytest.skip(f"here a cgroup holds {controller}")
    box = await _begun(backend)
    with pytest.raises(Unsupported, match="limits"):
        await box.set_limits(wanted)
    await box.ping()


async def test_a_dead_sandbox_has_no_limits_to_change(backend: Backend) -> None:
    box = await _begun(backend)
    await box.destroy()
    with pytest.raises(SandboxDied):
        await box.set_limits(Limits(memory_mb=256, pids=32, disk_mb=4))
