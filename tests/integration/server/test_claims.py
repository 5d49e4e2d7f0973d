"""Claims over HTTP: the door for programs, and the one for a line of shell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest

from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio

KEYS = {"ann": "sp_a-key-of-the-first-one", "bob": "sp_a-key-of-the-second-one"}
SETTINGS = ServerSettings(
    port=0,
    keys=tuple(
        KeySettings(name=name, namespace=name, sha256=fingerprint(key))
        for name, key in KEYS.items()
    ),
)
WEB: dict[str, Any] = {
    "name": "web",
    "entrypoint": ["python3", "-m", "http.server", "8080"],
    "ports": [8080],
    "health_check": {"kind": "http"},
    "lifetime": 300,
    "min_remaining": 120,
    "warm": 2,
    "max": 60,
    "allow_get_claim": True,
}


@dataclass(frozen=True)
class World:
    """A server of two namespaces; the first has the pool `web`, whose servers do not exist."""

    ann: httpx.AsyncClient
    bob: httpx.AsyncClient
    backend: FakeBackend
    """Makes the sandboxes of both."""
    clock: ManualClock

    async def define(self, **changes: Any) -> None:
        """Make a pool, and wait until it is full."""
        spec = {**WEB, **changes}
        (await self.ann.post("/v1/pools", json=spec)).raise_for_status()
        (await self.ann.post(f"/v1/pools/{spec['name']}/warm")).raise_for_status()

    async def ids(self) -> list[str]:
        """Return what is ready, in the order of its hand-out."""
        return [entry["id"] for entry in (await self.ann.get("/v1/pools/web/sandboxes")).json()]

    async def leased(self) -> int:
        """Return how many sandboxes have been claimed."""
        found: int = (await self.ann.get("/v1/pools/web")).json()["leased"]
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = ManualClock()
    backend = FakeBackend(clock=clock)
    async with serving(SETTINGS, backends={"native": lambda: backend}, clock=clock) as url:
        clients = [
            httpx.AsyncClient(
                base_url=url,
                trust_env=False,
                verify=False,
                headers={"Authorization": f"Bearer {key}"},
            )
            for key in KEYS.values()
        ]
        async with clients[0] as ann, clients[1] as bob:
            yield World(ann, bob, backend, clock)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return what is wrong."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


# --- the door for programs ------------------------------------------------------------------------


async def test_m12_a_claim_tells_who_it_is_and_where_and_for_how_long(world: World) -> None:
    await world.define()
    first, _ = await world.ids()
    await world.clock.advance(100)
    answer = await world.ann.post("/v1/pools/web/claim", json={"min_remaining": 150})
    found = answer.raise_for_status().json()
    assert found["id"] == first
    assert found["remaining"] == pytest.approx(200, abs=1)
    assert found["expires_at"] == pytest.approx(world.clock.utc().timestamp() + 200, abs=1)
    assert (await world.ann.get(found["url"])).text == "hello\n"


async def test_a_claimed_sandbox_is_nobody_elses_and_is_replaced(world: World) -> None:
    await world.define()
    claimed = [(await world.ann.post("/v1/pools/web/claim")).json()["id"] for _ in range(4)]
    assert len(set(claimed)) == 4
    await world.clock.advance(1)
    assert len(await world.ids()) == 2
    assert not set(claimed) & set(await world.ids())


async def test_m13_health_is_looked_at_unless_the_claim_says_not_to(world: World) -> None:
    await world.define()
    first, second = await world.ids()
    world.backend.box(first).ports.server(8080).status = 500
    blind = await world.ann.post("/v1/pools/web/claim", json={"check_health": False})
    assert blind.json()["id"] == first
    world.backend.box(second).ports.server(8080).status = 500
    assert (await world.ann.post("/v1/pools/web/claim")).json()["id"] != second


@pytest.mark.slow
async def test_m14_twenty_claims_at_once_are_twenty_by_either_door(world: World) -> None:
    await world.define()
    urls: set[str] = set()

    async def post() -> None:
        urls.add((await world.ann.post("/v1/pools/web/claim")).json()["url"])

    async def get() -> None:
        urls.add((await world.ann.get("/claim/web")).json())

    for door in (post, get):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(door)
    assert len(urls) == 40
    assert await world.leased() == 40


# --- the door for a line of shell -----------------------------------------------------------------


async def test_m14_a_get_answers_with_the_url_and_nothing_else(world: World) -> None:
    await world.define()
    answer = await world.ann.get("/claim/web", params={"check_health": "true"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text == f'"{answer.json()}"'
    assert (await world.ann.get(answer.json())).text == "hello\n"


async def test_m14_each_get_is_another_sandbox(world: World) -> None:
    await world.define()
    urls = {(await world.ann.get("/claim/web")).json() for _ in range(3)}
    assert len(urls) == 3
    assert await world.leased() == 3


async def test_m14_a_get_looks_at_health_unless_it_says_not_to(world: World) -> None:
    await world.define()
    first, second = await world.ids()
    world.backend.box(first).ports.server(8080).status = 500
    blind = await world.ann.get("/claim/web", params={"check_health": "false"})
    assert first in blind.json()
    world.backend.box(second).ports.server(8080).status = 500
    assert second not in (await world.ann.get("/claim/web")).json()


async def test_m14_a_get_takes_nothing_unless_the_definition_allows_it(world: World) -> None:
    await world.define(allow_get_claim=False)
    answer = await world.ann.get("/claim/web")
    assert "allow_get_claim" in problem(answer, 405)["detail"]
    assert answer.headers["allow"] == "POST"
    assert await world.leased() == 0


async def test_a_get_from_a_pool_without_ports_takes_nothing(world: World) -> None:
    await world.define(ports=[], health_check={"kind": "guest"})
    assert "have no ports" in problem(await world.ann.get("/claim/web"), 409)["detail"]
    assert await world.leased() == 0


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["navigate", "no-cors", "cors"])
async def test_a_page_of_another_site_takes_nothing_by_a_get(
    world: World, site: str, mode: str
) -> None:
    await world.define()
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    answer = await world.ann.get("/claim/web", headers=headers)
    assert problem(answer, 403)["code"] == "forbidden_origin"
    assert await world.leased() == 0


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_who_types_the_address_into_a_browser_claims(world: World, site: str) -> None:
    await world.define()
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    (await world.ann.get("/claim/web", headers=headers)).raise_for_status()
    assert await world.leased() == 1


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_no_other_method_takes_anything(world: World, method: str) -> None:
    await world.define()
    answer = await world.ann.request(method, "/claim/web")
    assert answer.status_code == 405
    assert await world.leased() == 0


# --- what is refused ------------------------------------------------------------------------------

DOORS = [("POST", "/v1/pools/{}/claim"), ("GET", "/claim/{}")]


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_without_a_key_nothing_is_claimed(world: World, method: str, path: str) -> None:
    await world.define()
    async with httpx.AsyncClient(base_url=world.ann.base_url, trust_env=False) as anyone:
        problem(await anyone.request(method, path.format("web")), 401)
    assert await world.leased() == 0


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_another_namespace_s_pool_is_not_there(world: World, method: str, path: str) -> None:
    await world.define()
    theirs = problem(await world.bob.request(method, path.format("web")), 404)
    nobodys = problem(await world.bob.request(method, path.format("wob")), 404)
    assert theirs["detail"].replace("web", "wob") == nobodys["detail"]
    assert await world.leased() == 0


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_m10_when_nothing_can_be_made_the_cause_is_told_at_once(
    world: World, method: str, path: str
) -> None:
    spec = {**WEB, "setup": ["echo no network >&2; exit 3"], "create_retries": 0}
    (await world.ann.post("/v1/pools", json=spec)).raise_for_status()
    answer = await world.ann.request(method, path.format("web"))
    found = problem(answer, 503)
    assert found["code"] == "pool_degraded"
    assert "no network" in found["cause"]
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_m10_a_claim_that_may_not_wait_is_told_so(
    world: World, method: str, path: str
) -> None:
    await world.define(warm=0)
    options: dict[str, Any] = {"params" if method == "GET" else "json": {"timeout": 0}}
    answer = await world.ann.request(method, path.format("web"), **options)
    assert problem(answer, 503)["code"] == "acquire_timeout"
    assert answer.headers["retry-after"] == "1"
    assert await world.leased() == 0


@pytest.mark.parametrize("timeout", ["-1", "nan", "inf", "x", "86401"])
async def test_a_wait_that_is_no_time_is_refused(world: World, timeout: str) -> None:
    await world.define()
    problem(await world.ann.get("/claim/web", params={"timeout": timeout}), 422)
    assert await world.leased() == 0
