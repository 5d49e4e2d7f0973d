"""What callers can send that nobody should: each gets an answer that says so, or a closed door."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import anyio.abc
import httpx
import pytest

from sandpool.server import KeySettings, NamespaceLimits, ServerSettings, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio

KEY = "sp_the-key-that-nobody-may-see"
SETTINGS = ServerSettings(
    port=0,
    keys=(KeySettings(name="key", sha256=fingerprint(KEY)),),
    max_body=4096,
    max_upload=8192,
)
HASTY = SETTINGS.model_copy(update={"head_timeout": 0.5, "body_timeout": 0.5})
"""Of a server that soon stops waiting for the rest of a request."""
POOL = {"name": "p", "warm": 1, "max": 2}
PATIENCE = 60.0
"""Seconds within which every abuse has to be over."""


@dataclass(frozen=True)
class Answer:
    """One answer as it came over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The problem's code; fails for an answer that is no problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["code"])


class Wire:
    """A server, and raw bytes to it."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.client = client
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    async def connect(self) -> anyio.abc.SocketStream:
        return await anyio.connect_tcp(self.host, self.port)

    async def send(self, *pieces: bytes) -> list[Answer]:
        """Send bytes on a connection of their own; return the answers until it is closed."""
        with anyio.fail_after(PATIENCE):
            async with await self.connect() as stream:
                for piece in pieces:
                    try:
                        await stream.send(piece)
                    except anyio.BrokenResourceError:
                        break
                return parse(await read_all(stream))

    async def one(self, *pieces: bytes) -> Answer:
        """Send bytes that get exactly one answer."""
        (answer,) = await self.send(*pieces)
        return answer

    async def is_well(self) -> bool:
        """Whether the server still does what it is for."""
        lent = await self.client.post("/v1/pools/p/lease", json={"timeout": PATIENCE})
        given_back = await self.client.delete(f"/v1/leases/{lent.json().get('lease_id')}")
        return (lent.status_code, given_back.status_code) == (201, 204)


@pytest.fixture
def settings() -> ServerSettings:
    return SETTINGS


hasty = pytest.mark.parametrize("settings", [pytest.param(HASTY, id="hasty")])


@pytest.fixture
async def wire(settings: ServerSettings) -> AsyncIterator[Wire]:
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            verify=False,
            timeout=PATIENCE,
            headers={"Authorization": f"Bearer {KEY}"},
        ) as client,
    ):
        assert (await client.post("/v1/pools", json=POOL)).status_code == 201
        wire = Wire(url, client)
        yield wire
        assert await wire.is_well()


async def read_all(stream: anyio.abc.SocketStream) -> bytes:
    found = b""
    try:
        while True:
            found += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return found


def parse(data: bytes) -> list[Answer]:
    """Return the answers in what came, each of which has to name its length."""
    found: list[Answer] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0"))
        found.append(Answer(int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def request(
    line: str = "GET /v1/pools HTTP/1.1",
    *headers: str,
    body: bytes = b"",
    host: str = "127.0.0.1",
    key: str = KEY,
) -> bytes:
    """Return a request that is good but for what is given, on a connection that ends with it."""
    lines = [line, f"Host: {host}", f"Authorization: Bearer {key}", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def post(body: bytes, *headers: str, path: str = "/v1/pools") -> bytes:
    kind = (
        ()
        if any("content-type" in each for each in headers)
        else ("content-type: application/json",)
    )
    return request(f"POST {path} HTTP/1.1", *kind, *headers, body=body)


BAD_HEADS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /v1/pools\r\nHost: 127.0.0.1\r\n\r\n",
    "HTTP 9": b"GET /v1/pools HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET /v1/pools HTTP/1.1\r\n\r\n",
    "two hosts": request("GET /v1/pools HTTP/1.1", "Host: evil.example"),
    "a space before the colon": request("GET /v1/pools HTTP/1.1", "Transfer-Encoding : chunked"),
    "NUL in a header": request("GET /v1/pools HTTP/1.1", "A: b\0c"),
    "a bare CR": request("GET /v1/pools HTTP/1.1", "A: b\rSet-Cookie: c"),
    "a path of control characters": request("GET /\x01 HTTP/1.1"),
    "a path of Latin-1": request("GET /v1/p\xf6ols HTTP/1.1"),
    "a body of two lengths": request(
        "POST /v1/pools HTTP/1.1", "Content-Length: 3", "Content-Length: 5"
    ),
    "a body of negative length": request("POST /v1/pools HTTP/1.1", "Content-Length: -1"),
    "a body of length +1": request("POST /v1/pools HTTP/1.1", "Content-Length: +1"),
    "a length and chunks": request(
        "POST /v1/pools HTTP/1.1", "Content-Length: 4", "Transfer-Encoding: chunked"
    )
    + b"0\r\n\r\n",
    "chunks of another coding": request("POST /v1/pools HTTP/1.1", "Transfer-Encoding: gzip"),
    "chunks twice": request("POST /v1/pools HTTP/1.1", "Transfer-Encoding: chunked, chunked"),
    "a chunk without a length": request("POST /v1/pools HTTP/1.1", "Transfer-Encoding: chunked")
    + b"no number\r\n\r\n",
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in BAD_HEADS.items()])
async def test_what_is_no_proper_request_gets_one_refusal_and_no_second_chance(
    wire: Wire, sent: bytes
) -> None:
    answer = await wire.one(sent + request())
    assert 400 <= answer.status < 500
    assert answer.code
    assert answer.headers["connection"] == "close"


LONG_HEADS = {
    "a long target": request(f"GET /{'a' * 20_000} HTTP/1.1"),
    "a long query": request(f"GET /v1/pools?{'a' * 20_000} HTTP/1.1"),
    "a request line without end": b"GET /" + b"a" * 200_000,
    "one long header": request("GET /v1/pools HTTP/1.1", "A: " + "b" * 70_000),
    "a header without end": request()[:-4] + b"\r\nA: " + b"b" * 200_000,
    "many headers": request("GET /v1/pools HTTP/1.1", *(f"A{n}: b" for n in range(500))),
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in LONG_HEADS.items()])
async def test_a_head_that_is_too_long_is_refused(wire: Wire, sent: bytes) -> None:
    answer = await wire.one(sent)
    assert (answer.status, answer.code) == (431, "head_too_large")


async def test_a_declared_body_that_is_too_long_is_refused_before_it_is_sent(wire: Wire) -> None:
    answer = await wire.one(request("POST /v1/pools HTTP/1.1", "Content-Length: 4097"))
    assert (answer.status, answer.code) == (413, "payload_too_large")


async def test_chunks_that_grow_too_long_are_refused(wire: Wire) -> None:
    head = request(
        "POST /v1/pools HTTP/1.1", "content-type: application/json", "Transfer-Encoding: chunked"
    )
    chunk = b"400\r\n" + b" " * 0x400 + b"\r\n"
    answer = await wire.one(head, *[chunk] * 5)
    assert (answer.status, answer.code) == (413, "payload_too_large")


@hasty
async def test_a_refused_body_of_any_length_is_not_read_for_ever(wire: Wire) -> None:
    head = b"POST /v1/pools HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
    (answer,) = await wire.send(head, b"only this much")
    assert (answer.status, answer.code) == (401, "unauthorized")


SLOW = {
    "nothing": b"",
    "half a request line": b"GET /v1/po",
    "half a head": request()[:-2],
}


@hasty
@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in SLOW.items()])
async def test_a_head_that_does_not_come_is_not_waited_for(wire: Wire, sent: bytes) -> None:
    answer = await wire.one(sent) if sent else (await wire.send())[0]
    assert (answer.status, answer.code) == (408, "request_timeout")


@hasty
async def test_a_second_head_that_does_not_come_is_not_waited_for_either(wire: Wire) -> None:
    first = request().replace(b"Connection: close\r\n", b"")
    answers = await wire.send(first, b"GET /v1/po")
    assert [answer.status for answer in answers] == [200, 408]


@hasty
async def test_a_head_of_one_byte_at_a_time_is_not_waited_for(wire: Wire) -> None:
    async def dribble(stream: anyio.abc.SocketStream) -> None:
        # Each byte comes sooner than a bound on silence would notice.
        while True:
            await stream.send(b"b")
            await anyio.sleep(0.01)

    came = b""
    with anyio.fail_after(PATIENCE):
        async with await wire.connect() as stream, anyio.create_task_group() as group:
            await stream.send(b"GET / HTTP/1.1\r\nA: ")
            group.start_soon(dribble, stream)
            came = await stream.receive()
            group.cancel_scope.cancel()
    (answer,) = parse(came)
    assert (answer.status, answer.code) == (408, "request_timeout")


@hasty
async def test_a_body_that_does_not_come_is_not_waited_for(wire: Wire) -> None:
    head = request("POST /v1/pools HTTP/1.1", "content-type: application/json")
    answer = await wire.one(head[:-2] + b"Content-Length: 10\r\n\r\n", b"{")
    assert (answer.status, answer.code) == (408, "request_timeout")


async def test_a_body_that_breaks_off_gets_no_answer_and_makes_nothing(wire: Wire) -> None:
    whole = post(json.dumps({**POOL, "name": "half"}).encode())
    with anyio.fail_after(PATIENCE):
        async with await wire.connect() as stream:
            await stream.send(whole[:-1])
    assert (await wire.client.get("/v1/pools/half")).status_code == 404


async def test_requests_that_come_at_once_are_answered_in_their_order(wire: Wire) -> None:
    first = request("GET /v1/pools/p HTTP/1.1").replace(b"Connection: close\r\n", b"")
    second = request("GET /v1/pools/none HTTP/1.1").replace(b"Connection: close\r\n", b"")
    answers = await wire.send(first + second + first + request("GET /healthz HTTP/1.1"))
    assert [answer.status for answer in answers] == [200, 404, 200, 200]


async def test_an_answered_request_leaves_its_connection_to_the_next(wire: Wire) -> None:
    refused = post(b"{").replace(b"Connection: close\r\n", b"")
    answers = await wire.send(refused, refused, request())
    assert [answer.status for answer in answers] == [422, 422, 200]


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"name=p",
    "half an object": b'{"name": "a"',
    "a list": b"[]",
    "null": b"null",
    "a number as name": b'{"name": 7}',
    "text as number": b'{"name": "a", "warm": "many"}',
    "a fraction as count": b'{"name": "a", "warm": 1.5}',
    "NaN as number": b'{"name": "a", "lifetime": NaN}',
    "infinity": b'{"name": "a", "lifetime": Infinity}',
    "a number beyond floats": b'{"name": "a", "lifetime": 1e999}',
    "a number of many digits": b'{"name": "a", "warm": ' + b"9" * 3000 + b"}",
    "a negative count": b'{"name": "a", "warm": -1}',
    "an unknown field": b'{"name": "a", "colour": "red"}',
    "a name with a slash": b'{"name": "../a"}',
    "an empty name": b'{"name": ""}',
    "a name with NUL": b'{"name": "a\\u0000"}',
    "half a surrogate": b'{"name": "\\ud800"}',
    "invalid UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "a\xe9"}'.encode("utf-16"),
    "deep lists": b'{"name": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "deep objects": b'{"tools_config": ' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}",
    "a NUL in a variable": b'{"name": "a", "env": {"A": "b\\u0000"}}',
    "an equals sign in a variable": b'{"name": "a", "env": {"A=B": "c"}}',
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in BAD_BODIES.items()])
async def test_a_body_that_is_no_definition_is_refused(wire: Wire, sent: bytes) -> None:
    answer = await wire.one(post(sent))
    assert (answer.status, answer.code) in ((422, "invalid_spec"), (400, "http_error"))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "a/b/c", ""])
async def test_a_body_of_another_type_is_not_taken_for_json(wire: Wire, kind: str) -> None:
    # What a page of elsewhere can send without being asked first.
    answer = await wire.one(post(b'{"name": "a"}', f"content-type: {kind}"))
    assert (answer.status, answer.code) == (422, "invalid_spec")


async def test_what_a_refused_body_held_is_not_repeated(wire: Wire) -> None:
    secret = "hunter2-of-the-body"
    fields = {"name": "a", "warm": secret, "env": {"A": [secret]}, "files": {"/a": 1}, "image": 3}
    answer = await wire.one(post(json.dumps(fields).encode()))
    assert answer.code == "invalid_spec"
    assert secret.encode() not in answer.body


PATHS = [
    "/v1/pools/..%2f..%2fetc",
    "/v1/pools/%2e%2e",
    "/v1/../../etc/passwd",
    "//v1/pools",
    "/v1//pools",
    "/v1/pools/%00",
    "/v1/pools/p%00",
    "/v1/pools/%ff",
    "/v1/pools/" + "a" * 2000,
    "/v1/sandboxes/..%2fx",
    "/v1/sandboxes/%0d%0aSet-Cookie:a",
    "/v1/leases/%00",
    "/V1/pools",
    "/p/",
    "/p/..%2f/80/",
    "/p/x/99999999/",
    "/enclave/sandbox/..%2f",
    "/docs/../v1",
    "http://evil.example/v1/nothing",
    "*",
    "/%",
    "/%zz",
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_leads_nowhere_is_refused(wire: Wire, path: str) -> None:
    answer = await wire.one(request(f"GET {path} HTTP/1.1"))
    assert 400 <= answer.status < 500
    assert answer.code
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "PROPFIND", "BREW", "get", "PATCH", "A" * 300]
)
async def test_a_method_that_a_route_lacks_is_refused(wire: Wire, method: str) -> None:
    answer = await wire.one(request(f"{method} /v1/pools HTTP/1.1"))
    assert (answer.status, answer.code) == (405, "method_not_allowed")


VISITORS = {
    "another origin": (403, "forbidden_origin", ["Origin: https://evil.example"]),
    "no origin that has a name": (403, "forbidden_origin", ["Origin: null"]),
    "an origin that is none": (403, "forbidden_origin", ["Origin: http://[::"]),
    "a page of elsewhere": (403, "forbidden_origin", ["Sec-Fetch-Site: cross-site"]),
    "two keys": (401, "unauthorized", ["X-API-Key: sp_another-key-than-that"]),
}


@pytest.mark.parametrize(
    ("status", "code", "headers"), [pytest.param(*each, id=name) for name, each in VISITORS.items()]
)
async def test_a_visitor_who_may_not_call_is_refused(
    wire: Wire, status: int, code: str, headers: list[str]
) -> None:
    answer = await wire.one(request("GET /v1/pools HTTP/1.1", *headers))
    assert (answer.status, answer.code) == (status, code)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", ["", "a b", "evil.example/x", "user@127.0.0.1", "[::1", "a" * 300])
async def test_a_host_that_is_no_host_is_refused(wire: Wire, host: str) -> None:
    answer = await wire.one(request(host=host))
    assert 400 <= answer.status < 500
    assert answer.code in ("bad_request", "forbidden_origin")


async def test_an_open_server_answers_only_to_names_of_this_machine() -> None:
    async with (
        serving(ServerSettings(port=0), backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        found = await client.get("/v1/pools", headers={"Host": "evil.example"})
        assert (found.status_code, found.json()["code"]) == (403, "forbidden_origin")
        assert (await client.get("/v1/pools", headers={"Host": "localhost"})).status_code == 200


KEYLESS = {
    "in the query": (f"/v1/pools?key={KEY}&api_key={KEY}&token={KEY}&access_token={KEY}", ""),
    "in a cookie": ("/v1/pools", f"Cookie: api_key={KEY}; token={KEY}"),
    "by password": ("/v1/pools", "Authorization: Basic c3BfdGhlLWtleTp4"),
    "as something longer": ("/v1/pools", f"Authorization: Bearer {KEY}x"),
    "as something shorter": ("/v1/pools", f"Authorization: Bearer {KEY[:-1]}"),
    "as nothing": ("/v1/pools", "Authorization: Bearer "),
    "as letters of elsewhere": ("/v1/pools", "X-API-Key: \xff\xfe"),
}


@pytest.mark.parametrize(
    ("path", "header"), [pytest.param(*each, id=name) for name, each in KEYLESS.items()]
)
async def test_a_key_counts_only_whole_and_in_its_header(
    wire: Wire, path: str, header: str
) -> None:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    sent = "\r\n".join([*lines, *([header] if header else [])]).encode("latin-1")
    answer = await wire.one(sent + b"\r\n\r\n")
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "bearer"
    assert KEY.encode() not in answer.body


IDEMPOTENCY = {
    "an empty key": (422, "invalid_spec", [""]),
    "a long key": (422, "invalid_spec", ["k" * 256]),
    "a key for another request": (409, "idempotency_conflict", ["used"]),
}


@pytest.mark.parametrize(
    ("status", "code", "keys"), [pytest.param(*each, id=name) for name, each in IDEMPOTENCY.items()]
)
async def test_an_idempotency_key_that_cannot_be_meant_is_refused(
    wire: Wire, status: int, code: str, keys: list[str]
) -> None:
    used = {"Idempotency-Key": "used"}
    made = await wire.client.post("/v1/pools", json={**POOL, "name": "one"}, headers=used)
    assert made.status_code == 201
    headers = [f"Idempotency-Key: {key}" for key in keys]
    answer = await wire.one(post(b'{"name": "two"}', *headers))
    assert (answer.status, answer.code) == (status, code)
    assert (await wire.client.get("/v1/pools/two")).status_code == 404


def upgrade(path: str, *headers: str) -> bytes:
    wanted = ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    sent = request(f"GET {path} HTTP/1.1", *wanted, *(headers or (key,)))
    return sent.replace(b"Connection: close", b"Connection: Upgrade")


@pytest.mark.parametrize("path", ["/v1/pools", "/healthz", "/nowhere", "/v1/pools/p/claim"])
async def test_a_websocket_at_a_route_that_is_none_is_refused(wire: Wire, path: str) -> None:
    answer = await wire.one(upgrade(path))
    assert (answer.status, answer.code) == (404, "route_not_found")


async def test_a_websocket_without_a_key_is_refused(wire: Wire) -> None:
    answer = await wire.one(upgrade("/nowhere").replace(KEY.encode(), b"sp_of-somebody-else"))
    assert (answer.status, answer.code) == (401, "unauthorized")


@pytest.mark.parametrize("header", ["Sec-WebSocket-Key: short", "A: b"])
async def test_a_websocket_that_is_badly_opened_is_refused(wire: Wire, header: str) -> None:
    answer = await wire.one(upgrade("/nowhere", header))
    assert 400 <= answer.status < 500


@hasty
async def test_no_log_has_the_keys_and_tokens_of_callers(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    token = "a-token-that-opens-a-port"
    with caplog.at_level(logging.INFO):
        for path in (f"/p/x~{token}/80/", f"/nowhere?token={token}", "/v1/pools/none"):
            for sent in (upgrade(path), request(f"GET {path} HTTP/1.1"), upgrade(path)[:-9]):
                assert (await wire.one(sent)).status >= 400
    assert token not in caplog.text
    assert KEY not in caplog.text


async def test_an_upgrade_to_something_else_is_answered_as_if_it_were_none(wire: Wire) -> None:
    answer = await wire.one(request("GET /v1/pools HTTP/1.1", "Upgrade: h2c"))
    assert answer.status == 200


async def test_connections_beyond_the_bound_are_refused_and_the_others_go_on() -> None:
    settings = SETTINGS.model_copy(update={"max_connections": 3})
    async with serving(settings, backends={"native": FakeBackend}) as url:
        wire = Wire(url, httpx.AsyncClient(verify=False, timeout=60))
        with anyio.fail_after(PATIENCE):
            held = [await wire.connect() for _ in range(3)]
            await held[0].send(request("GET /healthz HTTP/1.1").replace(b"close", b"keep-alive"))
            assert parse(await held[0].receive())[0].status == 200
            refused = await wire.one()
            assert (refused.status, refused.code) == (429, "no_capacity")
            assert refused.headers["retry-after"] == "1"
            await held[1].send(request("GET /healthz HTTP/1.1"))
            assert parse(await read_all(held[1]))[0].status == 200
            assert (await wire.one(request("GET /healthz HTTP/1.1"))).status == 200
            for stream in held:
                await stream.aclose()
        await wire.client.aclose()


async def test_a_namespace_that_calls_too_often_is_told_when_to_come_back() -> None:
    limits = NamespaceLimits(requests_per_second=0.01, burst=2)
    settings = SETTINGS.model_copy(update={"default_limits": limits})
    async with serving(settings, backends={"native": FakeBackend}) as url:
        wire = Wire(url, httpx.AsyncClient(verify=False, timeout=60))
        answers = [await wire.one(request()) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].code == "rate_limited"
        assert 0 < int(answers[2].headers["retry-after"]) <= 100
        await wire.client.aclose()
