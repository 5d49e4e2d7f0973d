"""What the server says of itself: its OpenAPI document, and whether it is true."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandpool.server import ServerSettings
from sandpool.testing import FakeBackend
from sandpool.wire import problems
from tests.dialects.application import in_memory

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    async with in_memory(ServerSettings(port=0), FakeBackend()) as client:
        yield client


async def test_every_route_describes_its_refusals_as_problems(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    refusals: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status == "default" or int(status) >= 400:
                    place = f"{method} {path} {status}"
                    refusals[place] = list(response.get("content", {}))
    assert refusals
    assert {place for place, types in refusals.items() if types != [problems.MEDIA_TYPE]} == set()
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/pools", {"name": "rl", "warm": -1}, 422),
        ("/v1/pools", {"name": "rl", "image": "/nowhere"}, 400),
        ("/v1/pools/none/claim", {}, 404),
    ],
)
async def test_a_refusal_is_as_described(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    answer = await api.post(path, json=body)
    document = (await api.get("/openapi.json")).json()
    described = document["paths"]["/v1/pools"]["post"]["responses"]["422"]["content"]
    assert answer.status_code == status
    assert answer.headers["content-type"] in described
    assert set(described[problems.MEDIA_TYPE]["schema"]["required"]) <= set(answer.json())
