"""Two namespaces that try to reach each other, by every route that there is.

The routes are taken from the server itself, so a new one is tried as soon as it is there; one whose
parameters or body this module does not know fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandpool.clock import MonotonicClock
from sandpool.dialects import tensorlake
from sandpool.server import KeySettings, NamespaceLimits, ServerSettings, serving
from sandpool.server.app import create_routes
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend
from tests.integration.server.table import Route, walk

pytestmark = pytest.mark.anyio

KEYS = {"ann-1": "sp_a-key-of-the-first-one", "bob-1": "sp_a-key-of-the-second-one"}
SETTINGS = ServerSettings(
    port=0,
    keys=tuple(
        KeySettings(name=name, namespace=name, sha256=fingerprint(key))
        for name, key in KEYS.items()
    ),
)

THINGS = ("namespace", "pool", "pool_id", "sandbox_id", "lease", "context_id")
"""Parameters that name something of a namespace."""
HARMLESS = {
    "tool": "shell_executor",
    "port": "8000",
    "snapshot_id": "snapshot-1",
    "key": "1",
    "channel": "stdout",
    "session_id": "1",
}
"""Parameters that name nothing, or something inside of what another one names."""
QUERY = {"path": "/tmp", "target_dir": "/tmp", "port": "8000"}
BODIES: dict[str, dict[str, Any]] = {
    "PUT /v1/pools/{pool}": {"name": "vault"},
    "POST /v1/sandboxes/{sandbox_id}/extend": {"lifetime": 5},
    "POST /v1/sandboxes/{sandbox_id}/contexts/{context_id}/cells": {"code": "1"},
    "PUT /tensorlake/sandbox-pools/{pool_id}": {"image": "host"},
    "PUT /v1/namespaces/{namespace}/sandbox-pools/{pool_id}": {"image": "host"},
}
"""What a route needs to be given before it looks for what its path names."""


_app = create_routes(SETTINGS, backends=None, clock=MonotonicClock(), journal=None)
ROUTES = list(walk(_app.routes))
WITH_THINGS = [route for route in ROUTES if set(route.parameters) & set(THINGS)]
LISTINGS = [route for route in ROUTES if route.method == "GET" and not route.parameters]
_data_plane: Any = tensorlake.data_plane(_app.state.tensorlake)
INSIDE = list(walk(_data_plane.routes))
"""Routes that are for the sandbox that a header names."""


class World:
    """A server with two namespaces, the first of which has one of everything."""

    def __init__(self, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
        self.ann = ann
        self.bob = bob
        self.things: dict[str, str] = {}

    async def furnish(self) -> None:
        """Make what the second namespace must not find."""
        pool = await self.ann.post("/v1/pools", json={"name": "vault", "warm": 1, "max": 3})
        claimed = await self.ann.post("/v1/pools/vault/claim")
        lent = await self.ann.post("/v1/pools/vault/lease")
        sandbox = claimed.raise_for_status().json()["id"]
        context = await self.ann.post(f"/v1/sandboxes/{sandbox}/contexts", json={})
        self.things = {
            "namespace": "ann-1",
            "pool": "vault",
            "pool_id": pool.raise_for_status().json()["pool_id"],
            "sandbox_id": sandbox,
            "lease": lent.raise_for_status().json()["lease_id"],
            "context_id": context.raise_for_status().json()["id"],
        }

    def absent(self) -> dict[str, str]:
        """Return ids that look like those, of things that nobody has."""
        return {name: value[:-1] + _other(value[-1]) for name, value in self.things.items()}

    async def call(self, route: Route, things: dict[str, str], **more: str) -> httpx.Response:
        """Call a route with the second namespace's key."""
        headers = dict(more)
        if route.method == "WS":
            headers |= {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
        method = "GET" if route.method == "WS" else route.method
        body = BODIES.get(str(route), {}) if method in ("POST", "PUT", "PATCH") else None
        path = route.fill(HARMLESS | things)
        return await self.bob.request(method, path, params=QUERY, json=body, headers=headers)


def _other(letter: str) -> str:
    return "b" if letter == "a" else "a"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        serving(SETTINGS, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(
            base_url=url, trust_env=False, verify=False, headers={"X-API-Key": KEYS["ann-1"]}
        ) as ann,
        httpx.AsyncClient(
            base_url=url, trust_env=False, verify=False, headers={"X-API-Key": KEYS["bob-1"]}
        ) as bob,
    ):
        world = World(ann, bob)
        await world.furnish()
        yield world
        # Whatever the other one tried, all of it is still there.
        things = world.things
        pool = await ann.get("/v1/pools/vault")
        sandbox = await ann.get(f"/v1/sandboxes/{things['sandbox_id']}")
        lease = await ann.get(f"/v1/leases/{things['lease']}")
        assert (pool.status_code, sandbox.status_code, lease.status_code) == (200, 200, 200)
        assert (pool.json()["spec"]["warm"], pool.json()["leased"]) == (1, 2)
        assert sandbox.json()["status"] == "busy"


def without(text: str, things: dict[str, str]) -> str:
    """Return an answer with its ids taken out, so that it can be compared to another one."""
    for name, value in things.items():
        text = text.replace(value, f"<{name}>")
    return text


def test_every_route_is_known() -> None:
    documented = {
        f"{method.upper()} {path}"
        for path, methods in _app.openapi()["paths"].items()
        for method in methods
    }
    assert documented <= {str(route) for route in ROUTES}
    unknown = {
        name: str(route)
        for route in (*ROUTES, *INSIDE)
        for name in route.parameters
        if name not in THINGS and name not in HARMLESS
    }
    assert unknown == {}, "say in THINGS or HARMLESS what these parameters are"


async def test_what_belongs_to_another_namespace_is_as_absent_as_what_there_is_not(
    world: World,
) -> None:
    wrong: dict[str, object] = {}
    for route in WITH_THINGS:
        found = await world.call(route, world.things)
        control = await world.call(route, world.absent())
        told = without(found.text, world.things)
        # What nobody has is refused before anything is looked for.
        if found.status_code != 404 and found.json()["code"] != "unsupported":
            wrong[str(route)] = found.status_code, found.text
        elif (found.status_code, told) != (
            control.status_code,
            without(control.text, world.absent()),
        ):
            wrong[str(route)] = found.text, control.text
    assert wrong == {}


async def test_another_namespaces_ids_lead_nowhere_also_among_ones_own(world: World) -> None:
    mine = (await world.bob.post("/v1/sandboxes")).raise_for_status().json()["id"]
    sandbox = world.things["sandbox_id"]
    lease = {"X-Sandpool-Lease": world.things["lease"]}
    by_lease = await world.bob.post(f"/v1/sandboxes/{sandbox}/ping", headers=lease)
    by_own = await world.bob.post(f"/v1/sandboxes/{mine}/ping", headers=lease)
    context = world.things["context_id"]
    cells = await world.bob.post(
        f"/v1/sandboxes/{mine}/contexts/{context}x/cells", json={"code": "1"}
    )
    tool = {"sandbox_id": sandbox, "tool_name": "shell_executor"}
    by_body = await world.bob.post("/enclave/sandbox/tool/execute", json=tool)
    port = await world.bob.get(f"/p/{sandbox}/8000/")
    answers = [by_lease, by_own, cells, by_body, port]
    assert [answer.status_code for answer in answers] == [404] * len(answers)


async def test_a_sandbox_that_a_header_names_is_absent_too(world: World) -> None:
    wrong: dict[str, object] = {}
    for route in INSIDE:
        answers: list[tuple[int, str]] = []
        for things in (world.things, world.absent()):
            header = {"X-Tensorlake-Sandbox-Id": things["sandbox_id"]}
            answer = await world.call(route, {}, **header)
            answers.append((answer.status_code, without(answer.text, things)))
        if answers[0] != answers[1] or answers[0][0] != 404:
            wrong[str(route)] = answers
    assert wrong == {}


async def test_no_listing_names_what_belongs_to_another_namespace(world: World) -> None:
    telling = [value for name, value in world.things.items() if name != "namespace"]
    told: dict[str, object] = {}
    for route in LISTINGS:
        if route.path in ENDLESS:
            continue
        answer = await world.bob.get(route.path, params={"warm": "1"})
        if answer.status_code == 500 or any(value in answer.text for value in telling):
            told[route.path] = answer.status_code, answer.text
    assert told == {}


ENDLESS = frozenset({"/v1/events"})
"""Answers that go on for ever, which have tests of their own."""


async def test_a_name_that_another_namespace_has_is_free(world: World) -> None:
    made = await world.bob.post("/v1/pools", json={"name": "vault", "warm": 0})
    assert made.status_code == 201
    assert (await world.bob.delete("/v1/pools/vault")).status_code == 204


async def test_what_one_namespace_deletes_is_its_own(world: World) -> None:
    assert (await world.bob.post("/v1/cleanup")).status_code == 204


async def test_an_idempotency_key_is_its_namespaces_own(world: World) -> None:
    key = {"Idempotency-Key": "same"}
    body = {"name": "twin", "warm": 0}
    first = await world.ann.post("/v1/pools", json=body, headers=key)
    second = await world.bob.post("/v1/pools", json=body, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert "idempotency-replayed" not in second.headers
    assert first.json()["pool_id"] != second.json()["pool_id"]


async def test_one_namespaces_bounds_are_not_the_others() -> None:
    small = NamespaceLimits(max_sandboxes=1, max_pools=1, max_leases=0)
    settings = SETTINGS.model_copy(update={"limits": {"bob-1": small}})
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        for name, statuses in {
            "bob-1": ["201", "429 no_capacity", "429 no_capacity", "201", "429 no_capacity"],
            "ann-1": ["201", "201", "201", "201", "201"],
        }.items():
            client.headers["X-API-Key"] = KEYS[name]
            answers = [
                await client.post("/v1/pools", json={"name": "one", "warm": 0, "max": 2}),
                await client.post("/v1/pools", json={"name": "two", "warm": 0}),
                await client.post("/v1/pools/one/lease", json={"timeout": 1}),
                await client.post("/v1/sandboxes"),
                await client.post("/v1/sandboxes"),
            ]
            told = [
                f"{answer.status_code} {answer.json().get('code', '')}".strip()
                for answer in answers
            ]
            assert told == statuses


async def test_one_namespaces_rate_is_not_the_others() -> None:
    rare = NamespaceLimits(requests_per_second=0.01, burst=1)
    settings = SETTINGS.model_copy(update={"limits": {"bob-1": rare}})
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        told: dict[str, list[int]] = {}
        for name in ("bob-1", "ann-1"):
            client.headers["X-API-Key"] = KEYS[name]
            told[name] = [(await client.get("/v1/pools")).status_code for _ in range(3)]
        assert told == {"bob-1": [200, 429, 429], "ann-1": [200, 200, 200]}
