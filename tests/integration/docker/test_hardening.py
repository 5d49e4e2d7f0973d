"""What a container may not do unless somebody asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandpool.backends.base import BoxSpec, Limits, RunOptions
from sandpool.backends.docker import DockerBackend

from .conftest import SPEC, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PROBE = RunOptions(timeout=30)


async def described(backend: DockerBackend, spec: BoxSpec = SPEC) -> dict[str, Any]:
    await backend.create(spec, box_id="hard")
    found: list[dict[str, Any]] = json.loads(docker("inspect", "sandbox-hard"))
    return found[0]


async def test_the_engine_is_asked_for_a_container_that_is_shut(backend: DockerBackend) -> None:
    found = await described(
        backend, BoxSpec(image=SPEC.image, limits=Limits(memory_mb=200, pids=50))
    )
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert host["IpcMode"] == "private"
    assert host["PidMode"] == ""
    assert host["PidsLimit"] == 50
    assert host["Memory"] == host["MemorySwap"] == 200 * 1024 * 1024
    assert host["Binds"] is None
    assert found["Mounts"] == []
    assert found["Config"]["User"] == "1000:1000"


async def test_what_runs_is_an_ordinary_user_without_rights(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="rights")
    code = "import os; print(os.getuid(), os.getgid()); print(open('/proc/self/status').read())"
    lines = (await box.run_code(code, PROBE)).stdout.splitlines()
    assert lines[0] == "1000 1000"
    fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    rights = {name: int(fields[name], 16) for name in fields if name.startswith("Cap")}
    assert set(rights.values()) == {0}
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"


async def test_only_the_writable_places_can_be_written(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="places")
    code = """
import os
for place in ("/", "/usr", "/etc", "/var", "/home", "/run", "/root", "/dev", "/sys/fs/cgroup",
              "/sandbox", "/tmp", "/var/tmp", "/dev/shm", "/home/sandbox"):
    try:
        open(place + "/written", "w").close()
        print("w", place)
    except OSError:
        print("-", place)
"""
    found = (await box.run_code(code, PROBE)).stdout.splitlines()
    assert [line[2:] for line in found if line.startswith("w")] == [
        "/sandbox", "/tmp", "/var/tmp", "/dev/shm", "/home/sandbox",
    ]  # fmt: skip


async def test_there_is_no_network_but_its_own(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="network")
    code = """
import os, socket
print(os.listdir("/sys/class/net"))
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    print(type(error).__name__, error.errno)
"""
    assert (await box.run_code(code, PROBE)).stdout == "['lo']\nOSError 101\n"


async def test_the_guest_is_out_of_the_reach_of_what_it_runs(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="guest")
    code = """
import os, signal
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/fd/3", "/proc/1/root/etc/passwd"):
    try:
        open(path, "rb").read(1)
        print("read", path)
    except OSError as error:
        print(error.errno)
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
    os.kill(1, number)
"""
    assert (await box.run_code(code, PROBE)).stdout == "13\n" * 4
    await box.ping()


async def test_the_engine_shows_no_secret(backend: DockerBackend) -> None:
    spec = BoxSpec(image=SPEC.image, env={"API_KEY": "hunter2", "LANG": "hunter2.UTF-8"})
    found = await described(backend, spec)
    assert "hunter2" not in json.dumps(found)


async def test_a_program_that_eats_memory_is_killed_alone(backend: DockerBackend) -> None:
    spec = BoxSpec(image=SPEC.image, limits=Limits(memory_mb=64))
    box = await backend.create(spec, box_id="hungry")
    result = await box.run_code("x = b'x' * (200 << 20)", PROBE)
    assert (result.oom_killed, result.exit_code) == (True, 137)
    result = await box.run_code("import os; os.kill(os.getpid(), 9)", PROBE)
    assert (result.oom_killed, result.exit_code) == (False, 137)


async def test_a_fork_bomb_stays_within_its_limit(backend: DockerBackend) -> None:
    box = await backend.create(BoxSpec(image=SPEC.image, limits=Limits(pids=32)), box_id="bomb")
    code = """
import os, time
born = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        born += 1
except BlockingIOError:
    print(0 < born < 32)
"""
    assert (await box.run_code(code, PROBE)).stdout == "True\n"
    assert await box.kill_all() > 0
    assert (await box.run_code("print(1)", PROBE)).stdout == "1\n"


async def test_a_full_disk_is_an_error_inside_and_nothing_more(backend: DockerBackend) -> None:
    box = await backend.create(BoxSpec(image=SPEC.image, limits=Limits(disk_mb=8)), box_id="full")
    code = """
try:
    for number in range(100):
        open(f"f{number}", "wb").write(bytes(1 << 20))
except OSError as error:
    print(error.errno, number)
"""
    assert (await box.run_code(code, PROBE)).stdout == "28 8\n"
    await box.ping()
