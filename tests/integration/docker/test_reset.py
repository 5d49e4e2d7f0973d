"""A container that is given back is as new, or is given to nobody."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxManagerConfig, SandboxType
from sandpool.backends.base import Binding, BoxSpec, ContainerSpec, Limits, RunOptions, Volume
from sandpool.backends.box import GuestBox
from sandpool.backends.docker import DockerBackend
from sandpool.errors import (
    ContextNotFound,
    GuestError,
    ResetFailed,
    SandboxDied,
    StaleEpoch,
    Unsupported,
)
from sandpool.models import ContainerPolicy

from .conftest import SPEC, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PROBE = RunOptions(timeout=30)

LITTER = """
import os, socket, subprocess
from multiprocessing import shared_memory
for place in ("/sandbox", "/tmp", "/var/tmp", "/home/sandbox", "/dev/shm", "/run/sandpool"):
    os.makedirs(place + "/deep/" + "d/" * 50)
    open(place + "/.hidden", "w").write("secret")
    os.symlink("/etc", place + "/link")
    os.mkfifo(place + "/fifo")
os.chdir("/tmp")
for _ in range(300):
    os.mkdir("down")
    os.chdir("down")
held = open("/tmp/held", "w")
os.unlink("/tmp/held")
subprocess.Popen(["sleep", "1000"], start_new_session=True)
if os.fork() == 0 and os.fork() == 0:
    server = socket.create_server(("127.0.0.1", 9999))
    hidden = socket.socket(socket.AF_UNIX)
    hidden.bind("\\0hidden")
    import time
    time.sleep(1000)
"""

LOOK = """
import os
for place in ("/sandbox", "/tmp", "/var/tmp", "/home/sandbox", "/dev/shm", "/dev/mqueue"):
    print(place, os.listdir(place))
read = lambda pid: open(f"/proc/{pid}/cmdline").read()
others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
print([read(pid) for pid in others if read(pid) != read(1)])
print(sorted(os.environ), os.getcwd())
"""


async def look(box: GuestBox) -> str:
    # A file of its own is where the code lies while it runs; `exec` has none.
    result = await box.exec(RunOptions(argv=("python3", "-c", LOOK), timeout=30))
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def test_nothing_of_the_last_tenant_is_left(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="litter")
    await box.bind(Binding(epoch=1))
    before = await look(box)
    await box.bind(Binding(epoch=2, env={"TOKEN": "secret"}, cwd="/tmp"))
    result = await box.run_code(LITTER, PROBE)
    assert result.exit_code == 0, result.stderr
    context = await box.open_context(env={}, cwd=None)
    await box.run_in_context(context, "x = 1", timeout=10, max_output=None)
    await box.reset()
    await box.bind(Binding(epoch=3))
    assert await look(box) == before
    with pytest.raises(ContextNotFound):
        await box.run_in_context(context, "x", timeout=10, max_output=None)


async def test_it_is_the_same_container_and_may_be_reset_again(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="again")
    before = docker("inspect", "--format", "{{.Id}} {{.State.Pid}}", "sandbox-again")
    for number in range(10):
        code = f"open('mine', 'x').write('{number}'); print(open('mine').read())"
        assert (await box.run_code(code, PROBE)).stdout == f"{number}\n"
        await box.reset()
    assert docker("inspect", "--format", "{{.Id}} {{.State.Pid}}", "sandbox-again") == before


async def test_what_still_goes_on_is_ended(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="busy")
    run = await box.start(RunOptions(argv=("sleep", "1000"), stdin=None))
    relay_server = await box.start_code(
        "import socket; s = socket.create_server(('', 7777)); s.accept(); s.accept()", PROBE
    )
    with anyio.fail_after(60):
        while True:
            try:
                relay = await box.dial(7777)
                break
            except OSError:
                continue
    await box.reset()
    for ended in (run, relay_server):
        with pytest.raises(GuestError, match="cancelled"):
            await ended.wait()
    # Its server may have been gone before it was cancelled.
    with suppress(GuestError):
        assert await relay.receive() == b""
    assert (await box.run_code("print(1)", PROBE)).stdout == "1\n"


async def test_an_earlier_lease_stays_fenced(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="fenced")
    await box.bind(Binding(epoch=5))
    await box.reset()
    await box.bind(Binding(epoch=4))
    with pytest.raises(StaleEpoch):
        await box.run_code("print(1)", PROBE)


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [
        ("import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (512, 512))", "guest"),
        ("import os; os.sched_setaffinity(1, {0})", "guest"),
        ("import os; os.setpriority(os.PRIO_PROCESS, 1, os.nice(0) + 1)", "guest"),
        ("import os; os.chmod('/sandbox', 0o700)", "/sandbox"),
        ("import os; os.mkdir('shut'); open('shut/f', 'w'); os.chmod('shut', 0)", "removed"),
        ("import ctypes; assert ctypes.CDLL(None).shmget(1, 4096, 0o1600) >= 0", "sysvipc/shm"),
        ("import ctypes; assert ctypes.CDLL(None).semget(1, 1, 0o1600) >= 0", "sysvipc/sem"),
        ("import ctypes; assert ctypes.CDLL(None).msgget(1, 0o1600) >= 0", "sysvipc/msg"),
    ],
)
async def test_any_doubt_is_a_failure(backend: DockerBackend, doubt: str, reason: str) -> None:
    if "sched_setaffinity" in doubt and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one processor only")
    box = await backend.create(SPEC, box_id="doubt")
    result = await box.run_code(doubt, PROBE)
    assert result.exit_code == 0, result.stderr
    with pytest.raises(ResetFailed, match=reason):
        await box.reset()


async def test_a_message_queue_is_removed(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="queue")
    code = """
import ctypes, os
assert ctypes.CDLL("librt.so.1").mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
print(os.listdir("/dev/mqueue"))
"""
    assert (await box.run_code(code, PROBE)).stdout == "['left']\n"
    await box.reset()
    result = await box.run_code("import os; print(os.listdir('/dev/mqueue'))", PROBE)
    assert result.stdout == "[]\n"


async def test_a_tenant_out_of_memory_is_not_the_next_one_s_fault(backend: DockerBackend) -> None:
    box = await backend.create(BoxSpec(image=SPEC.image, limits=Limits(memory_mb=64)), box_id="oom")
    run = await box.start_code("x = b'x' * (200 << 20)", PROBE)
    async for _ in run:
        pass
    await box.reset()
    result = await box.run_code("import os; os.kill(os.getpid(), 9)", PROBE)
    assert (result.exit_code, result.oom_killed) == (137, False)


async def test_a_sandbox_that_died_is_not_reset(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="dead")
    docker("kill", "sandbox-dead")
    with pytest.raises(SandboxDied):
        await box.reset()


async def test_what_reaches_outside_cannot_be_proved_clean(
    backend: DockerBackend, tmp_path: Path
) -> None:
    volume = Volume(source=str(tmp_path), target="/data", is_writable=True)
    for name, asked in (
        ("volume", ContainerSpec(volumes=(volume,))),
        ("network", ContainerSpec(network="host")),
    ):
        box = await backend.create(BoxSpec(image=SPEC.image, container=asked), box_id=name)
        with pytest.raises(Unsupported, match="could not be proved"):
            await box.reset()
        assert (await box.run_code("print(1)", PROBE)).stdout == "1\n"


async def test_a_pool_of_containers_resets_them_unless_it_is_told_otherwise() -> None:
    tools: dict[str, Any] = {"tools_config": {"python_executor": {}}}
    code = {"code": "open('left', 'x'); print(open('/etc/hostname').read())"}
    async with LocalSandboxManager() as manager:
        ids = await manager.initialize_pool(1, SandboxType.DOCKER, tools)
        container = docker("inspect", "--format", "{{.Id}}", f"sandbox-{ids[0]}")
        for _ in range(5):
            result = await manager.execute_tool_in_pool("python_executor", code, timeout=15)
            assert result.error is None
        assert docker("inspect", "--format", "{{.Id}}", f"sandbox-{ids[0]}") == container


async def test_a_lease_s_handle_ends_with_it(backend: DockerBackend) -> None:
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="boxes", backend="docker", image=SPEC.image, warm=1, max=1)
        assert spec.recycle == "reset"
        await manager.create_pool(spec)
        async with manager.lease("boxes") as first:
            await first.files.write("mine", b"secret")
        async with manager.lease("boxes", timeout=15) as second:
            assert second.id == first.id
            assert await second.files.list(".") == []
            with pytest.raises(Exception, match="over"):
                await first.files.read("mine")


async def test_a_doubtful_sandbox_of_a_pool_is_replaced() -> None:
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="boxes", backend="docker", image=SPEC.image, warm=1, max=1)
        await manager.create_pool(spec)
        async with manager.lease("boxes") as first:
            await first.run_code("import os; os.chmod('/sandbox', 0o700)")
        async with manager.lease("boxes", timeout=15) as second:
            assert second.id != first.id
            assert (await second.run_code("print(1)")).stdout == "1\n"


async def test_a_pool_that_cannot_reset_makes_new_ones(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    policy = ContainerPolicy(volume_roots=(str(tmp_path),))
    async with LocalSandboxManager(SandboxManagerConfig(containers=policy)) as manager:
        config: dict[str, Any] = {
            "tools_config": {"python_executor": {}},
            "volumes": {str(tmp_path): {"bind": "/data", "mode": "rw"}},
        }
        await manager.initialize_pool(1, SandboxType.DOCKER, config)
        code = {"code": "open('left', 'x'); open('/data/kept', 'a').write('x')"}
        for _ in range(3):
            result = await manager.execute_tool_in_pool("python_executor", code, timeout=15)
            assert result.error is None
    assert (tmp_path / "kept").read_text() == "xxx"
