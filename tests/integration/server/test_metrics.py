"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio

KEYS = {name: f"sp_the-key-of-{name}-alone" for name in ("ann", "bob")}
SETTINGS = ServerSettings(
    port=0,
    keys=tuple(
        KeySettings(name=name, namespace=name, sha256=fingerprint(key))
        for name, key in KEYS.items()
    ),
)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(SETTINGS, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        client.headers["X-API-Key"] = KEYS["ann"]
        yield client


async def scrape(client: httpx.AsyncClient, name: str = "ann") -> Series:
    answer = await client.get("/metrics", headers={"X-API-Key": KEYS[name]})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


async def test_a_pool_is_told_of_by_all_its_figures(client: httpx.AsyncClient) -> None:
    await client.post("/v1/pools", json={"name": "p", "warm": 2, "max": 4})
    await client.post("/v1/pools/p/warm")
    await client.post("/v1/pools/p/lease")
    await client.post("/v1/pools/p/warm")
    series = await scrape(client)
    names = {
        "ready": 2,
        "creating": 0,
        "leased": 1,
        "resetting": 0,
        "waiting": 0,
        "hits_total": 1,
        "misses_total": 0,
        "created_total": 3,
        "destroyed_total": 0,
        "create_failures_total": 0,
        "degraded": 0,
    }
    found = {name: figure(series, f"sandpool_pool_{name}", pool="p") for name in names}
    assert found == names
    assert figure(series, "sandpool_leases") == 1


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    await client.post("/v1/pools", json={"name": "p", "warm": 0})
    for name in ("p", "x", "y"):
        await client.get(f"/v1/pools/{name}")
    series = await scrape(client)
    count = "sandpool_http_requests_total"
    route = {"method": "GET", "route": "/v1/pools/{pool}"}
    assert figure(series, count, **route, status="200") == 1
    assert figure(series, count, **route, status="404") == 2
    assert figure(series, "sandpool_http_request_seconds_count", **route) == 3


async def test_routes_of_dialects_have_their_whole_templates(client: httpx.AsyncClient) -> None:
    paths = {
        "/enclave/sandbox/x": "/enclave/sandbox/{sandbox_id}",
        "/tensorlake/sandboxes/x": "/tensorlake/sandboxes/{sandbox_id}",
        "/v1/namespaces/ann/sandboxes/x": "/v1/namespaces/{namespace}/sandboxes/{sandbox_id}",
        "/enclave/sandboxes": "/enclave/sandboxes",
        "/nowhere/x": "none",
    }
    for path in paths:
        await client.get(path)
    assert set(paths.values()) <= routes(await scrape(client))


async def test_what_is_passed_on_to_a_sandbox_is_one_route(client: httpx.AsyncClient) -> None:
    sandbox = (await client.post("/v1/sandboxes")).json()["id"]
    for port in ("8000", "8001"):
        await client.get(f"/p/{sandbox}/{port}/some/where")
    series = await scrape(client)
    labels = {"method": "GET", "route": "/p/{sandbox}/{port}"}
    assert figure(series, "sandpool_http_request_seconds_count", **labels) == 2


def routes(series: Series) -> set[str]:
    return {dict(labels).get("route", "") for _, labels in series}


async def test_whatever_callers_send_there_are_no_more_series(client: httpx.AsyncClient) -> None:
    async def probe(number: int) -> Series:
        await client.get(f"/v1/pools/x{number}")
        await client.get(f"/nowhere/{number}")
        await client.get(f"/v1/sandboxes/{number}?x={number}")
        await client.request(f"BREW{number}", "/v1/pools")
        await client.get("/healthz", headers={"X-API-Key": f"sp_a-key-of-nobody-{number}"})
        await client.get("/v1/pools", headers={"X-API-Key": f"sp_a-key-of-nobody-{number}"})
        return await scrape(client)

    await probe(0)
    first = await probe(1)
    assert set(await probe(2)) == set(first)


async def test_a_namespace_sees_its_own_figures_only(client: httpx.AsyncClient) -> None:
    await client.post("/v1/pools", json={"name": "p", "warm": 0})
    await client.get("/v1/pools/p")
    series = await scrape(client, "bob")
    assert figure(series, "sandpool_pool_ready", pool="p") is None
    assert routes(series) == {""}
    assert figure(series, "sandpool_leases") == 0


async def test_what_is_refused_without_a_key_is_nobodys(client: httpx.AsyncClient) -> None:
    await client.get("/v1/pools", headers={"X-API-Key": "sp_a-key-of-nobody"})
    refused = [
        figure(await scrape(client, name), "sandpool_http_refused_total", status="401")
        for name in KEYS
    ]
    assert refused == [1, 1]
    assert (await client.get("/metrics", headers={"X-API-Key": ""})).status_code == 401


async def test_the_process_has_figures_too(client: httpx.AsyncClient) -> None:
    series = await scrape(client)
    for name in ("process_resident_memory_bytes", "process_open_fds"):
        assert (figure(series, name) or 0) > 0
