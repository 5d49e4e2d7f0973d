"""What holds of addresses, whoever gives them out."""

from __future__ import annotations

import httpx
import pytest

from sandpool.errors import LeaseOver
from sandpool.models import PoolSpec
from sandpool.service import SandboxService

pytestmark = pytest.mark.anyio

PORT = 8080


@pytest.mark.parametrize("private", [False, True])
async def test_an_address_is_good_for_as_long_as_its_lease(
    service: SandboxService, *, private: bool
) -> None:
    await service.create_pool(PoolSpec(name="web", warm=1))
    async with httpx.AsyncClient(verify=False, timeout=60) as web:
        async with service.lease("web") as sandbox:
            url = await sandbox.url(PORT, private=private)
            assert await sandbox.url(PORT, private=private) == url
            answer = await web.get(url)
            assert (answer.status_code, answer.json()["code"]) == (502, "dial_failed")
        with pytest.raises(LeaseOver):
            await sandbox.url(PORT, private=private)
        try:
            answer = await web.get(url)
        except httpx.TransportError:
            return  # an embedded one is closed with its lease
        assert answer.status_code == 410


async def test_two_sandboxes_have_two_addresses(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="web", warm=2))
    async with service.lease("web") as one, service.lease("web") as other:
        urls = [await sandbox.url(port) for sandbox in (one, other) for port in (PORT, PORT + 1)]
        assert len(set(urls)) == 4


@pytest.mark.parametrize("port", [0, 65_536])
async def test_what_is_no_port_has_no_address(service: SandboxService, port: int) -> None:
    await service.create_pool(PoolSpec(name="web", warm=1))
    async with service.lease("web") as sandbox:
        with pytest.raises(ValueError, match="port"):
            await sandbox.url(port)
