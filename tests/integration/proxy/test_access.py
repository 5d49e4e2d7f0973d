"""Who may call a sandbox's port, and what its pages can reach."""

from __future__ import annotations

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sandpool.proxy.headers import ISOLATION
from sandpool.server import KeySettings, ServerSettings
from sandpool.server.keys import fingerprint
from tests.integration.proxy.conftest import NewWorld
from tests.integration.proxy.world import PORT, World, echo, handler_of

pytestmark = pytest.mark.anyio

DOMAIN = "box.example"
ALICE = "sp_alice-0123456789abcdef"
BOB = "sp_bob-0123456789abcdef"

LIMIT = 60.0


def key(name: str, secret: str) -> KeySettings:
    return KeySettings(name=name, sha256=fingerprint(secret), namespace=name)


KEYED = ServerSettings(port=0, keys=(key("alice", ALICE), key("bob", BOB)))
NAMED = ServerSettings(port=0, domain=DOMAIN)


@pytest.fixture
async def keyed(new_world: NewWorld) -> World:
    """A server with two keys, of a namespace each."""
    return await new_world(KEYED)


@pytest.fixture
async def named(new_world: NewWorld) -> World:
    """A server with a domain."""
    return await new_world(NAMED)


def as_(secret: str) -> dict[str, str]:
    return {"X-API-Key": secret}


async def test_a_key_opens_its_namespace_s_sandboxes_and_no_others(keyed: World) -> None:
    await keyed.machine.serve(PORT, handler_of(echo))
    box = await keyed.new_sandbox("mine", as_(ALICE))
    path = f"/p/{box}/{PORT}/"
    for headers in (as_(ALICE), {"Authorization": f"Bearer {ALICE}"}):
        assert (await keyed.client.get(path, headers=headers)).status_code == 200
    assert (await keyed.client.get(path)).status_code == 401
    assert (await keyed.client.get(path, headers=as_("sp_nobody-0123456789"))).status_code == 401
    assert (await keyed.client.get(path, headers=as_(BOB))).status_code == 404


async def test_an_id_in_two_namespaces_is_two_sandboxes(keyed: World) -> None:
    await keyed.machine.serve(PORT, handler_of(echo))
    urls = []
    for secret in (ALICE, BOB):
        await keyed.new_sandbox("same", as_(secret))
        urls.append((await keyed.address("same", as_(secret)))["url"])
    assert urls[0] != urls[1]
    await keyed.client.delete("/v1/sandboxes/same", headers=as_(ALICE))
    assert (await keyed.client.get(urls[0])).status_code == 410
    assert (await keyed.client.get(urls[1])).status_code == 200
    assert (await keyed.client.get(f"/p/same/{PORT}/", headers=as_(BOB))).status_code == 200


async def test_a_token_opens_its_port_without_a_key(keyed: World) -> None:
    await keyed.machine.serve(PORT, handler_of(echo))
    await keyed.machine.serve(PORT + 1, handler_of(echo))
    box = await keyed.new_sandbox(headers=as_(ALICE))
    address = await keyed.address(box, as_(ALICE))
    token = address["token"]
    assert (await keyed.client.get(address["url"])).status_code == 200
    by_header = {"X-Sandpool-Token": token}
    assert (await keyed.client.get(f"/p/{box}/{PORT}/", headers=by_header)).status_code == 200
    other = await keyed.client.get(f"/p/{box}/{PORT + 1}/", headers=by_header)
    assert other.status_code == 404


@pytest.mark.parametrize("token", ["0" * 32, "f" * 32])
async def test_a_wrong_token_opens_nothing_and_says_nothing(world: World, token: str) -> None:
    box = await world.new_sandbox()
    await world.address(box)
    real = await world.client.get(f"/p/{box}~{token}/{PORT}/")
    absent = await world.client.get(f"/p/nobody~{token}/{PORT}/")
    assert real.status_code == absent.status_code == 404
    assert real.text.replace(box, "nobody") == absent.text


async def test_a_key_or_token_does_not_reach_the_sandbox(keyed: World) -> None:
    seen: list = []  # type: ignore[type-arg]
    await keyed.machine.serve(PORT, handler_of(echo, seen=seen))
    box = await keyed.new_sandbox(headers=as_(ALICE))
    token = (await keyed.address(box, as_(ALICE)))["token"]
    for headers in (
        as_(ALICE),
        {"Authorization": f"Bearer {ALICE}"},
        {"X-Sandpool-Token": token, "Authorization": f"Bearer {ALICE}"},
    ):
        await keyed.client.get(f"/p/{box}/{PORT}/", headers=headers)
    assert len(seen) == 3
    for request, _ in seen:
        sent = b"\n".join(value for _, value in request.headers)
        assert ALICE.encode() not in sent
        assert token.encode() not in sent


async def test_a_private_port_asks_for_its_token_whoever_calls(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    assert (await world.client.get(f"/p/{box}/{PORT}/")).status_code == 200
    answer = await world.client.get(f"/v1/sandboxes/{box}/ports/{PORT}?private=true")
    assert (await world.client.get(f"/p/{box}/{PORT}/")).status_code == 401
    assert (await world.client.get(answer.json()["url"])).status_code == 200


async def test_a_lease_opens_the_ports_of_its_sandbox(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    await world.client.post("/v1/pools", json={"name": "web", "warm": 1})
    lease = (await world.client.post("/v1/pools/web/lease")).json()
    box, headers = lease["sandbox"]["id"], {"X-Sandpool-Lease": lease["lease_id"]}
    path = f"/p/{box}/{PORT}/"
    assert (await world.client.get(path, headers=headers)).status_code == 200
    assert (await world.client.get(path)).status_code == 409
    url = (await world.address(box, headers))["url"]
    assert (await world.client.get(url)).status_code == 200
    await world.client.delete(f"/v1/leases/{lease['lease_id']}")
    assert (await world.client.get(url)).status_code == 410


# By host name.


async def test_a_port_has_a_host_name_of_its_own(named: World) -> None:
    await named.machine.serve(PORT, handler_of(echo))
    box = await named.new_sandbox()
    url = httpx.URL((await named.address(box, {"Host": f"{DOMAIN}:8400"}))["url"])
    assert url.host.endswith(f".{DOMAIN}")
    assert url.port == 8400
    for host in (
        url.host,
        url.host.upper() + ".",
        url.host + ":8400",
        f"{PORT}-{box}.{DOMAIN}",
    ):
        answer = await named.client.get("/v1/pools?a=%2F", headers={"Host": host})
        assert (answer.status_code, answer.text) == (200, "GET /v1/pools?a=%2F "), host
        assert "content-security-policy" not in answer.headers


@pytest.mark.parametrize("label", ["www", "80", "080-box", "0-box", "a.80-box", "80-box_"])
async def test_no_other_name_below_the_domain_reaches_the_api(named: World, label: str) -> None:
    answer = await named.client.get("/v1/pools", headers={"Host": f"{label}.{DOMAIN}"})
    assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")


async def test_the_domain_itself_is_the_api_s(named: World) -> None:
    answer = await named.client.get("/v1/pools", headers={"Host": DOMAIN})
    assert answer.json() == []


@pytest.mark.parametrize(
    "hosts",
    ["", "Host: 80-box.box.example\r\nHost: box.example\r\n", "Host: 80-box.box.example/x\r\n"],
)
async def test_a_request_names_one_host(named: World, hosts: str) -> None:
    answer = await named.raw(f"GET /v1/pools HTTP/1.1\r\n{hosts}\r\n".encode())
    assert answer.split()[1] in (b"400", b"403")


@pytest.mark.parametrize("target", ["http://box.example/v1/pools", "*", "/../x", "/%2e%2e"])
async def test_a_host_name_takes_paths_only(named: World, target: str) -> None:
    box = await named.new_sandbox()
    answer = await named.raw(
        f"GET {target} HTTP/1.1\r\nHost: {PORT}-{box}.{DOMAIN}\r\n\r\n".encode()
    )
    assert answer.split()[1] == b"400"


# Pages.


async def test_a_page_that_shares_the_server_s_origin_is_given_its_own(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    for url in ((await world.address(box))["url"], f"/p/{box}/{PORT}/"):
        answer = await world.client.get(url)
        assert answer.headers["content-security-policy"] == ISOLATION.decode()


PAGES = [
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
]


@pytest.mark.parametrize("headers", PAGES)
async def test_a_page_of_a_sandbox_cannot_call_the_api(
    world: World, headers: dict[str, str]
) -> None:
    for method, path in (("GET", "/v1/pools"), ("POST", "/v1/sandboxes"), ("GET", "/healthz")):
        answer = await world.client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert (await world.client.get("/v1/sandboxes")).json()["items"] == []


@pytest.mark.parametrize("headers", PAGES)
async def test_a_page_cannot_call_other_sandboxes_by_their_ids(
    world: World, headers: dict[str, str]
) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox("guessable")
    assert (await world.client.get(f"/p/{box}/{PORT}/", headers=headers)).status_code == 403
    url = f"{world.url}/p/{box}/{PORT}/".replace("http", "ws")
    with anyio.fail_after(LIMIT), pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=headers)
    assert refused.value.response.status_code == 403
    assert world.machine.dials == []


async def test_a_page_can_call_its_own_port_by_the_address_it_came_from(world: World) -> None:
    await world.machine.serve(PORT, handler_of(echo))
    box = await world.new_sandbox()
    url = (await world.address(box))["url"]
    answer = await world.client.post(url + "data", headers={"Origin": "null"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    asked = {"Origin": "null", "Access-Control-Request-Method": "PUT"}
    answer = await world.client.options(url + "data", headers=asked)
    assert answer.status_code == 204
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_open_server_answers_under_its_own_names_only(world: World) -> None:
    box = await world.new_sandbox()
    answer = await world.client.get(f"/p/{box}/{PORT}/", headers={"Host": "rebound.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_origin")
