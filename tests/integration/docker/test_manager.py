"""Containers through the manager, and what a configuration may ask for."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandpool import (
    LocalSandboxManager,
    PoolSpec,
    SandboxFactory,
    SandboxManagerConfig,
    SandboxType,
)
from sandpool.backends.base import Box, BoxSpec
from sandpool.backends.docker import DockerBackend
from sandpool.errors import ImageNotFound, InvalidSpec, PoolDegraded, SandboxDied
from sandpool.models import ContainerPolicy

from .conftest import containers, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

DOCKER = SandboxType.DOCKER
TOOLS: dict[str, Any] = {"tools_config": {"python_executor": {}, "shell_executor": {}}}


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[LocalSandboxManager]:
    policy = ContainerPolicy(privileged=True, host_network=True, volume_roots=(str(tmp_path),))
    async with LocalSandboxManager(SandboxManagerConfig(containers=policy)) as manager:
        yield manager


async def shell(manager: LocalSandboxManager, sandbox: str, command: str) -> str:
    parameters = {"command": command, "timeout": 20}
    result = await manager.execute_tool(sandbox, "shell_executor", parameters)
    assert result.error is None, result.error
    return str(result.output)


def inspected(sandbox: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", f"sandbox-{sandbox}"))
    return found[0]


async def test_a_pool_of_containers_has_a_name_and_leases(manager: LocalSandboxManager) -> None:
    spec = PoolSpec(
        name="boxes", backend="docker", image="python:3.11-slim", preload=("json",), warm=1
    )
    await manager.create_pool(spec)
    async with manager.lease("boxes") as sandbox:
        result = await sandbox.run_code("import os; print(os.path.exists('/.dockerenv'))")
        assert result.stdout == "True\n"


async def test_the_sandboxes_of_a_pool_are_made_side_by_side(
    manager: LocalSandboxManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = DockerBackend.create
    both = anyio.Event()
    begun: list[str] = []

    async def meet(self: DockerBackend, spec: BoxSpec, *, box_id: str, **more: Any) -> Box:
        begun.append(box_id)
        if len(begun) == 2:
            both.set()
        await both.wait()  # for ever, if one was made after the other
        return await create(self, spec, box_id=box_id, **more)

    monkeypatch.setattr(DockerBackend, "create", meet)
    with anyio.fail_after(60):
        assert len(await manager.initialize_pool(2, DOCKER, TOOLS)) == 2


async def test_the_interface_s_limits_are_the_container_s(manager: LocalSandboxManager) -> None:
    config = {"memory_limit": "300m", "cpu_limit": 0.5, "resource_limits": {"pids": 40}}
    sandbox = await manager.create_sandbox(DOCKER, config)
    host = inspected(sandbox)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (300 << 20, 500_000_000, 40)


async def test_without_being_asked_there_is_no_network(manager: LocalSandboxManager) -> None:
    sandbox = await manager.create_sandbox(DOCKER, {})
    assert inspected(sandbox)["HostConfig"]["NetworkMode"] == "none"


async def test_a_command_runs_in_the_background(manager: LocalSandboxManager) -> None:
    config = {**TOOLS, "command": "echo begun > /sandbox/begun; exec sleep 1000"}
    sandbox = await manager.create_sandbox(DOCKER, config)
    wait = "until grep -s begun /sandbox/begun; do sleep 0.1; done; cat /proc/*/comm"
    assert "sleep" in (await shell(manager, sandbox, wait)).split()


async def test_the_host_s_network_and_extra_hosts_where_they_are_allowed(
    manager: LocalSandboxManager,
) -> None:
    config = {**TOOLS, "network": "host", "extra_hosts": {"oracle": "192.0.2.7"}}
    sandbox = await manager.create_sandbox(DOCKER, config)
    assert inspected(sandbox)["HostConfig"]["NetworkMode"] == "host"
    assert await shell(manager, sandbox, "grep oracle /etc/hosts") == "192.0.2.7\toracle\n"


async def test_a_volume_is_there_as_it_was_asked_for(
    manager: LocalSandboxManager, tmp_path: Path
) -> None:
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "read" / "data").write_text("from outside\n")
    config = {
        **TOOLS,
        "volumes": {
            str(tmp_path / "read"): {"bind": "/data"},
            str(tmp_path / "write"): {"bind": "/out", "mode": "rw"},
        },
    }
    sandbox = await manager.create_sandbox(DOCKER, config)
    command = "cat /data/data; touch /data/x 2>/dev/null || echo refused; echo hi > /out/hello"
    assert await shell(manager, sandbox, command) == "from outside\nrefused\n"
    assert (tmp_path / "write" / "hello").read_text() == "hi\n"


async def test_a_privileged_container_has_all_rights_where_it_is_allowed(
    manager: LocalSandboxManager,
) -> None:
    try:
        docker("run", "--rm", "--privileged", "--network=none", "python:3.11-slim", "true")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this engine's host has not all rights itself: {error.stderr}")
    sandbox = await manager.create_sandbox(DOCKER, {**TOOLS, "privileged": True})
    assert inspected(sandbox)["HostConfig"]["Privileged"] is True
    assert await shell(manager, sandbox, "id -u; mount -t tmpfs none /mnt && echo done") == (
        "0\ndone\n"
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"privileged": True}, "privileged"),
        ({"network": "host"}, "network"),
        ({"network": "container:other"}, "network"),
        ({"volumes": {"/etc": {"bind": "/data"}}}, "volumes: /etc lies below no directory"),
        ({"ports": {"80/tcp": 8080}}, "ports"),
    ],
)
async def test_what_is_not_allowed_is_refused_by_its_name(
    field: dict[str, Any], message: str
) -> None:
    async with LocalSandboxManager() as manager:
        with pytest.raises(InvalidSpec, match=message):
            await manager.create_sandbox(DOCKER, field)


async def test_a_container_that_is_kept_stays_stopped_and_nobody_reaps_it(
    manager: LocalSandboxManager,
) -> None:
    sandbox = await manager.create_sandbox(DOCKER, {"remove_on_exit": False})
    name = f"sandbox-{sandbox}"
    try:
        await manager.delete_sandbox(sandbox)
        assert inspected(sandbox)["State"]["Running"] is False
        async with LocalSandboxManager() as other:
            await other.create_sandbox(DOCKER, {})
            assert name in containers()
    finally:
        docker("rm", "--force", name)


async def test_one_sandbox_s_death_is_healed_by_its_pool(manager: LocalSandboxManager) -> None:
    ids = await manager.initialize_pool(2, DOCKER, TOOLS)
    docker("rm", "--force", f"sandbox-{ids[0]}")
    failures = 0
    for _ in range(4):
        try:
            result = await manager.execute_tool_in_pool(
                "python_executor", {"code": "print(40 + 2)"}, timeout=15
            )
            assert result.output == "42\n"
        except SandboxDied:
            # It was taken in the instant before its death was known.
            failures += 1
    assert failures <= 1
    assert (await manager.get_stats())["pool_target"] == 2


async def test_a_notebook_keeps_its_names_from_cell_to_cell(
    manager: LocalSandboxManager,
) -> None:
    config = {"image": "python:3.11-slim", "tools_config": {"notebook_executor": {}}}
    sandbox = await manager.create_sandbox(SandboxType.DOCKER_NOTEBOOK, config)
    for code in ("x = 40", "x + 2"):
        result = await manager.execute_tool(sandbox, "notebook_executor", {"code": code})
    assert result.output == "\nResult: 42"


async def test_a_container_needs_no_manager() -> None:
    made = SandboxFactory.create_sandbox(DOCKER, {"tools_config": {"python_executor": {}}})
    async with made as sandbox:
        result = await sandbox.execute_tool("python_executor", {"code": "print(40 + 2)"})
        assert result.output == "42\n"
        name = f"sandbox-{sandbox.id}"
        container = docker("inspect", "--format", "{{.Id}}", name)
        assert sandbox.get_info().metadata["container_id"] == container
    assert name not in containers()


async def test_a_pool_whose_image_is_missing_says_so(manager: LocalSandboxManager) -> None:
    config = {**TOOLS, "image": "localhost:1/no-such-image:1"}
    with pytest.raises((ImageNotFound, PoolDegraded), match=r"docker pull localhost:1/no-such"):
        await manager.initialize_pool(1, DOCKER, config)


async def test_an_image_is_pulled_when_it_is_missing(
    manager: LocalSandboxManager, registry: str, caplog: pytest.LogCaptureFixture
) -> None:
    reference = f"{registry}/python:pulled"
    docker("tag", "python:3.11-slim", reference)
    docker("push", "--quiet", reference)
    docker("rmi", reference)
    config = {**TOOLS, "image": reference, "pull_progress": True}
    try:
        with caplog.at_level(logging.INFO, "sandpool"):
            sandbox = await manager.create_sandbox(DOCKER, config)
        assert f"pulling {reference}" in caplog.text
        assert await shell(manager, sandbox, "echo pulled") == "pulled\n"
        await manager.delete_sandbox(sandbox)
    finally:
        docker("rmi", "--force", reference)
