"""A server with sandboxes that are real or not, and a sandbox to call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from sandpool.manager.backends import BackendFactory
from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend

SMALL = ServerSettings(port=0, max_body=64 * 1024, max_upload=1024 * 1024, body_timeout=5.0)


@dataclass(frozen=True)
class Place:
    """One sandbox of a server, and who calls it."""

    client: httpx.AsyncClient
    path: str
    """Of the sandbox's routes."""

    async def call(self, method: str, below: str, **options: object) -> httpx.Response:
        """Call one of its routes."""
        return await self.client.request(method, self.path + below, **options)  # type: ignore[arg-type]


KINDS = [
    pytest.param("fake", id="fake"),
    pytest.param("native", id="native", marks=pytest.mark.namespaces),
]


@pytest.fixture(params=KINDS)
async def place(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> AsyncIterator[Place]:
    """A sandbox of a server that takes small bodies."""
    make = FakeBackend if request.param == "fake" else native_backend
    async with (
        serving(SMALL, backends={"native": make}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=30) as client,
    ):
        made = await client.post("/v1/sandboxes")
        yield Place(client, f"/v1/sandboxes/{made.json()['id']}")
