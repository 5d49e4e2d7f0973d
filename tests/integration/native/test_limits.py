"""A tenant that takes all it can harms only its own sandbox."""

from __future__ import annotations

import os

import anyio
import pytest

from sandpool.backends.base import Backend, Box, BoxSpec, Limits, RunOptions
from sandpool.backends.native.cgroups import find
from sandpool.errors import SandboxDied

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

SMALL = BoxSpec(limits=Limits(memory_mb=64, pids=16, disk_mb=8, inodes=500, open_files=32))


async def still_works(box: Box) -> None:
    result = await box.run_code("print('well')", RunOptions(timeout=10))
    assert (result.exit_code, result.stdout) == (0, "well\n"), result


async def test_a_fork_bomb_ends_in_an_error_inside(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="bomb")
    neighbour = await backend.create(SMALL, box_id="neighbour")
    result = await box.run_code(
        "import os\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0:\n"
        "            import time; time.sleep(60)\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)",
        RunOptions(timeout=10),
    )
    assert result.stdout == "BlockingIOError\n"
    await still_works(neighbour)
    assert await box.kill_all() > 0
    await still_works(box)


async def test_a_fork_bomb_that_runs_on_is_killed_at_its_timeout(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="bomb")
    neighbour = await backend.create(SMALL, box_id="neighbour")
    code = (
        "import os\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0: os.setsid()\n"
        "    except OSError: pass"
    )
    async with anyio.create_task_group() as group:
        group.start_soon(box.run_code, code, RunOptions(timeout=1))
        await still_works(neighbour)
    await still_works(neighbour)
    await still_works(box)
    assert await box.kill_all() == 0


async def test_memory_past_the_limit_is_not_to_be_had(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="hog")
    neighbour = await backend.create(SMALL, box_id="neighbour")
    held_by_cgroup = "memory" in find().controllers
    try:
        result = await box.run_code(
            "x = bytearray(400 << 20); print(len(x))", RunOptions(timeout=20)
        )
    except SandboxDied as died:
        assert held_by_cgroup
        assert died.reason == "oom"
    else:
        assert result.exit_code != 0
        if held_by_cgroup:
            assert result.oom_killed
        else:
            assert "MemoryError" in result.stderr
        await still_works(box)
    await still_works(neighbour)


@pytest.mark.slow
async def test_many_small_processes_do_not_get_round_the_memory_limit(
    backend: Backend,
) -> None:
    if "memory" not in find().controllers:
        pytest.skip("this host has no writable memory cgroup, so memory holds per process only")
    box = await backend.create(SMALL, box_id="hogs")
    code = (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        x = bytearray(30 << 20); time.sleep(30)\n"
        "time.sleep(3)"
    )
    try:
        result = await box.run_code(code, RunOptions(timeout=20))
        assert result.exit_code == 0 or result.oom_killed
        left = await box.exec(RunOptions(argv=("sh", "-c", "ls -d /proc/[0-9]* | wc -l")))
        assert int(left.stdout) < 10
    except SandboxDied as died:
        assert died.reason == "oom"


async def test_disk_past_the_limit_is_enospc(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="disk")
    result = await box.run_code(
        "import errno\n"
        "total = 0\n"
        "for place in ('/tmp', '/sandbox', '/dev/shm', '/var/tmp', '/home/sandbox'):\n"
        "    try:\n"
        "        with open(place + '/fill', 'wb', buffering=0) as f:\n"
        "            while True: total += f.write(bytes(65536))\n"
        "    except OSError as error:\n"
        "        assert error.errno in (errno.ENOSPC, errno.EFBIG), error\n"
        "print(total <= 8 << 20)",
        RunOptions(timeout=20),
    )
    assert result.stdout == "True\n", result.stderr
    await box.run_code(
        "import glob, os\nfor p in glob.glob('/*/fill') + glob.glob('/*/*/fill'): os.unlink(p)",
        RunOptions(),
    )
    await still_works(box)


async def test_files_past_the_limit_are_enospc(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="inodes")
    result = await box.run_code(
        "import errno\n"
        "try:\n"
        "    for n in range(10_000): open(f'/tmp/{n}', 'w').close()\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno], n < 500)",
        RunOptions(timeout=20),
    )
    assert result.stdout == "ENOSPC True\n"


async def test_descriptors_past_the_limit_are_emfile(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="fds")
    result = await box.run_code(
        "import errno, os\n"
        "try:\n"
        "    while True: fd = os.open('/dev/null', 0)\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno], fd)",
        RunOptions(timeout=20),
    )
    assert result.stdout == "EMFILE 31\n"


async def test_endless_output_is_cut_and_said_to_be(backend: Backend) -> None:
    box = await backend.create(SMALL, box_id="flood")
    neighbour = await backend.create(SMALL, box_id="neighbour")
    async with anyio.create_task_group() as group:

        async def flood() -> None:
            result = await box.run_code(
                "while True: print('x' * 1000)", RunOptions(timeout=1, max_output=100_000)
            )
            assert result.timed_out
            assert result.truncated
            assert len(result.stdout) == 100_000

        group.start_soon(flood)
        for _ in range(5):
            await still_works(neighbour)
    await still_works(box)


async def test_processor_time_is_shared_by_quota(backend: Backend) -> None:
    if "cpu" not in find().controllers:
        pytest.skip("this host has no writable cpu cgroup")
    box = await backend.create(BoxSpec(limits=Limits(cpus=0.2)), box_id="spin")
    result = await box.run_code(
        "import time\n"
        "start, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() - start < 1: pass\n"
        "print((time.process_time() - used) < 0.6)",
        RunOptions(timeout=20),
    )
    assert result.stdout == "True\n"


async def test_the_info_says_what_holds_each_limit(backend: Backend) -> None:
    box = await backend.create(BoxSpec(), box_id="info")
    limits = box.info["limits"]
    assert set(limits) == {
        *("memory", "cpus", "pids", "disk", "inodes", "open_files", "output", "wall_time")
    }
    if os.geteuid() == 0 and "memory" in find().controllers:
        assert limits["memory"].startswith("cgroup")
