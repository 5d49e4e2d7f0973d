"""After a manager was killed the next one removes its containers, and nobody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from sandpool.backends.base import RunOptions
from sandpool.backends.docker import DockerBackend, reap

from .conftest import SPEC, containers, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

MANAGER = """
import asyncio, sys
from sandpool.backends.base import BoxSpec
from sandpool.backends.docker import DockerBackend

async def main(names):
    backend = DockerBackend()
    for name in names:
        await backend.create(BoxSpec(image="python:3.11-slim"), box_id=name)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main(sys.argv[1:]))
"""


@contextmanager
def manager(*names: str) -> Iterator[subprocess.Popen[str]]:
    """Run another program with a sandbox of each name; it is killed at the end."""
    argv = [sys.executable, "-c", MANAGER, *names]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def state_of(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(docker("inspect", "--format", "{{json .State}}", name))
    return found


async def test_what_a_killed_manager_had_is_removed_at_the_next_start(
    backend: DockerBackend,
) -> None:
    with manager("orphan1", "orphan2") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # Nothing of it runs on: the guests went with their connection.
    for name in ("sandbox-orphan1", "sandbox-orphan2"):
        docker("wait", name)
        assert state_of(name)["Running"] is False
    await backend.prepare(SPEC)
    assert not containers() & {"sandbox-orphan1", "sandbox-orphan2"}


async def test_what_is_left_can_be_removed_without_a_manager() -> None:
    with manager("living"):
        with manager("orphan3") as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
        orphan = docker("inspect", "--format", "{{.Id}}", "sandbox-orphan3")
        assert await reap() == [orphan]
        assert "sandbox-living" in containers()
    orphan = docker("inspect", "--format", "{{.Id}}", "sandbox-living")
    for expected in ([orphan], []):
        command = [sys.executable, "-m", "sandpool", "doctor", "--reap", "--json"]
        done = await anyio.run_process(command)
        assert json.loads(done.stdout) == {"containers": expected}
    assert await reap() == []


async def test_what_a_living_manager_has_is_left_alone(backend: DockerBackend) -> None:
    with manager("foreign"):
        box = await backend.create(SPEC, box_id="ours")
        assert {"sandbox-foreign", "sandbox-ours"} <= containers()
        assert (await box.run_code("print(1)", RunOptions())).stdout == "1\n"
        assert state_of("sandbox-foreign")["Running"] is True
        await backend.aclose()
        assert "sandbox-foreign" in containers()
    again = DockerBackend()
    await again.prepare(SPEC)
    assert "sandbox-foreign" not in containers()
    await again.aclose()


async def test_two_backends_of_one_program_share_an_engine(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="first")
    other = DockerBackend()
    await other.create(SPEC, box_id="second")
    await other.aclose()
    assert "sandbox-second" not in containers()
    assert (await box.run_code("print(1)", RunOptions())).stdout == "1\n"


async def test_containers_that_are_not_ours_are_nothing_to_us(backend: DockerBackend) -> None:
    docker("create", "--name", "somebody-s", "--label", "sandpool.owner=", SPEC.image)
    try:
        await backend.prepare(SPEC)
        assert "somebody-s" in containers()
    finally:
        docker("rm", "--force", "somebody-s")
