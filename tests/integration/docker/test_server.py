"""Containers through a server: what its clients may have is the operator's decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from sandpool import HttpSandboxManager, SandboxType
from sandpool.errors import InvalidSpec
from sandpool.models import ContainerPolicy, DockerSandboxConfig
from sandpool.server import ServerSettings, serving

from .conftest import docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def create(url: str, config: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(
            f"{url}/enclave/sandbox/create",
            params={"sandbox_type": "docker"},
            json=config,
            timeout=100,
        )


async def test_a_client_that_sends_every_field_asks_for_nothing_by_that() -> None:
    whole = DockerSandboxConfig().model_dump(mode="json", exclude={"preload"})
    async with serving(ServerSettings(port=0)) as url:
        answer = await create(url, whole)
        assert answer.status_code == 200, answer.text
        name = "sandbox-" + answer.json()["sandbox_id"]
        assert docker("inspect", "--format", "{{.HostConfig.NetworkMode}}", name) == "none"


async def test_what_only_an_operator_allows_is_refused_over_the_wire(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    volumes = {"volumes": {str(tmp_path): {"bind": "/data"}}}
    async with serving(ServerSettings(port=0)) as url:
        for asked in ({"privileged": True}, {"network": "host"}, volumes):
            answer = await create(url, asked)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec")
    settings = ServerSettings(port=0, containers=ContainerPolicy(volume_roots=(str(tmp_path),)))
    async with serving(settings) as url:
        assert (await create(url, volumes)).status_code == 200


async def test_a_remote_manager_has_containers_too() -> None:
    async with (
        serving(ServerSettings(port=0)) as url,
        HttpSandboxManager(base_url=url) as manager,
    ):
        config: dict[str, Any] = {"tools_config": {"python_executor": {}}}
        await manager.initialize_pool(2, SandboxType.DOCKER, config)
        code = {"code": "import os; print(os.path.exists('/.dockerenv'))"}
        for _ in range(3):
            result = await manager.execute_tool_in_pool("python_executor", code, timeout=15)
            assert result.output == "True\n"
        with pytest.raises(InvalidSpec, match="privileged"):
            await manager.create_sandbox(SandboxType.DOCKER, {"privileged": True})
