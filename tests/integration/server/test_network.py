"""Over HTTP, sandboxes get a network only where whoever runs the server allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from sandpool import Destination, HttpSandboxManager, InvalidSpec, Network, PoolSpec, SandboxType
from sandpool.models import NativeSandboxConfig
from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio

NETWORK = Network(allow=(Destination(host="pypi.org", ports=(443,)),))
SPEC = PoolSpec(name="one", warm=0, network=NETWORK)


@asynccontextmanager
async def manager(settings: ServerSettings) -> AsyncIterator[HttpSandboxManager]:
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        HttpSandboxManager(base_url=url) as found,
    ):
        yield found


async def test_a_server_refuses_a_network_by_default() -> None:
    async with manager(ServerSettings(port=0)) as served:
        with pytest.raises(InvalidSpec, match="network: this manager refuses it"):
            await served.create_pool(SPEC)
        config = NativeSandboxConfig(network=NETWORK)
        with pytest.raises(InvalidSpec, match="network: this manager refuses it"):
            await served.create_sandbox(SandboxType.NATIVE, config)
        await served.create_pool(SPEC.model_copy(update={"network": None}))
        with pytest.raises(InvalidSpec, match="network: this manager refuses it"):
            await served.update_pool("one", SPEC)
        assert (await served.get_pool("one")).spec.network is None


async def test_a_server_whose_operator_allows_it_gives_one() -> None:
    async with manager(ServerSettings(port=0, egress=True)) as served:
        info = await served.create_pool(SPEC)
        assert info.spec.network == NETWORK
        assert (await served.get_pool("one")).spec == info.spec


@pytest.mark.parametrize("path", ["/v1/sandboxes", "/enclave/sandbox/create?sandbox_type=native"])
async def test_no_dialect_is_a_way_round_the_operator(path: str) -> None:
    async with (
        serving(ServerSettings(port=0), backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        wanted = {"network": {"allow": ["pypi.org"]}}
        body = {"config": wanted} if path.startswith("/v1") else wanted
        answer = await client.post(path, json=body)
        assert 400 <= answer.status_code < 500
        assert "network" in answer.text
