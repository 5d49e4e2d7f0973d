"""The same sandboxes under other OCI runtimes: gVisor's kernel is not the host's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from sandpool.backends.base import Binding, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.errors import SandboxDied

from .conftest import SPEC, containers, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PROBE = RunOptions(timeout=30)


@pytest.fixture
async def gvisor() -> AsyncIterator[DockerBackend]:
    known = json.loads(docker("info", "--format", "{{json .Runtimes}}"))
    if "runsc" not in known:
        pytest.skip("the engine has no runtime runsc")
    backend = DockerBackend(runtime="runsc")
    yield backend
    await backend.aclose()
    assert not [name for name in containers() if name.startswith("sandbox-gvisor")]


async def test_gvisor_runs_code_and_commands(gvisor: DockerBackend) -> None:
    box = await gvisor.create(SPEC, box_id="gvisor1")
    assert "runsc" in box.info["isolation"]
    result = await box.run_code("import os; print(os.getuid(), os.uname().release)", PROBE)
    host = docker("info", "--format", "{{.KernelVersion}}")
    assert result.stdout.startswith("1000 ")
    assert result.stdout.split()[1] != host
    result = await box.exec(RunOptions(argv=("sh", "-c", "echo out; echo err >&2; exit 3")))
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    result = await box.run_code("while True: pass", RunOptions(timeout=0.5))
    assert result.timed_out
    assert (await box.run_code("print(1)", PROBE)).stdout == "1\n"


async def test_gvisor_is_reset(gvisor: DockerBackend) -> None:
    box = await gvisor.create(SPEC, box_id="gvisor2")
    for epoch in (1, 2, 3):
        await box.bind(Binding(epoch=epoch))
        code = """
import os, subprocess
print(os.listdir("."), os.path.exists("/tmp/left"))
open("left", "w").close()
os.mkdir("/tmp/left")
subprocess.Popen(["sleep", "1000"], start_new_session=True)
"""
        assert (await box.run_code(code, PROBE)).stdout == "[] False\n"
        await box.reset()
        assert await box.kill_all() == 0


async def test_gvisor_out_of_memory_is_a_death_that_says_so(gvisor: DockerBackend) -> None:
    box = await gvisor.create(SPEC, box_id="gvisor3")
    with pytest.raises(SandboxDied) as caught:
        await box.run_code("x = b'x' * (1 << 30)", PROBE)
    assert caught.value.reason == "oom"
