"""What the server says of itself: its OpenAPI document, and whether it is true."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from sandpool.server import ServerSettings
from sandpool.server.examples import EXAMPLES
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


async def test_every_body_of_a_native_call_is_described_with_an_example(
    api: httpx.AsyncClient,
) -> None:
    document = (await api.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    lacking: list[str] = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema", {})
            for option in schema.get("anyOf", [schema]):
                name = option.get("$ref", "").rpartition("/")[2]
                if path.startswith("/v1") and name and "examples" not in schemas[name]:
                    lacking.append(f"{method} {path}")
    assert lacking == []


@pytest.mark.parametrize(("model", "example"), EXAMPLES.items())
def test_an_example_is_what_its_model_takes(
    model: type[BaseModel], example: dict[str, Any]
) -> None:
    taken = model.model_validate_json(json.dumps(example))
    assert set(example) <= taken.model_fields_set


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
