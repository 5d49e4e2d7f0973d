"""What is passed on between a client and a sandbox, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import BadGateway
from sandpool.proxy.headers import (
    ISOLATION,
    MOST_HEADERS,
    Headers,
    Place,
    check_response,
    request_headers,
    response_headers,
)

SHARED = Place(
    host=b"127.0.0.1:8400",
    scheme=b"http",
    client=b"127.0.0.1",
    prefix=b"/p/box/80",
    cookie_prefix=b"sp.box.80.",
)
OWN = Place(host=b"80-box.example", scheme=b"https", client=b"10.0.0.1")


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


@pytest.mark.parametrize(
    "header",
    [
        (b"connection", b"keep-alive, x-secret"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"Basic x"),
        (b"expect", b"100-continue"),
        (b"x-api-key", b"sp_secret"),
        (b"authorization", b"Bearer sp_secret"),
        (b"authorization", b"bearer  sp_secret"),
        (b"x-sandpool-token", b"secret"),
        (b"x-sandpool-lease", b"lease"),
        (b"x-forwarded-host", b"liar"),
        (b"x-forwarded-proto", b"liar"),
        (b"x-forwarded-prefix", b"liar"),
        (b"x-real-ip", b"liar"),
        (b"forwarded", b"for=liar"),
    ],
)
def test_what_is_for_this_server_alone_does_not_reach_a_sandbox(
    header: tuple[bytes, bytes],
) -> None:
    assert header not in request_headers([header, (b"accept", b"*/*")], SHARED)


def test_a_header_that_the_connection_names_is_for_this_hop_alone() -> None:
    sent = [(b"connection", b"close, X-Secret"), (b"x-secret", b"1"), (b"x-other", b"2")]
    passed = request_headers(sent, OWN)
    assert values(passed, b"x-secret") == []
    assert values(passed, b"x-other") == [b"2"]


def test_a_sandbox_is_told_where_the_request_came_from() -> None:
    passed = dict(request_headers([(b"x-forwarded-for", b"1.2.3.4")], SHARED))
    assert passed[b"x-forwarded-for"] == b"1.2.3.4, 127.0.0.1"
    assert passed[b"x-forwarded-proto"] == b"http"
    assert passed[b"x-forwarded-host"] == b"127.0.0.1:8400"
    assert passed[b"x-forwarded-prefix"] == b"/p/box/80"
    assert b"x-forwarded-prefix" not in dict(request_headers([], OWN))


def test_the_application_s_own_authorization_is_passed_on() -> None:
    header = (b"authorization", b"Basic dXNlcjpwYXNz")
    assert header in request_headers([header], SHARED)


def test_a_shared_origin_passes_on_only_the_port_s_own_cookies() -> None:
    sent = [(b"cookie", b"jupyter=secret; sp.box.80.a=1; sp.box.81.b=2; sp.box.80.c=3")]
    assert values(request_headers(sent, SHARED), b"cookie") == [b"a=1; c=3"]
    assert values(request_headers([(b"cookie", b"other=1")], SHARED), b"cookie") == []
    assert values(request_headers(sent, OWN), b"cookie") == [sent[0][1]]


@pytest.mark.parametrize(
    ("given_", "shared", "own"),
    [
        (b"a=1", b"sp.box.80.a=1; Path=/p/box/80/", b"a=1"),
        (b"a=1; Path=/", b"sp.box.80.a=1; Path=/p/box/80/", b"a=1; Path=/"),
        (
            b"a=1; path=/x; HttpOnly",
            b"sp.box.80.a=1; HttpOnly; Path=/p/box/80/x",
            b"a=1; path=/x; HttpOnly",
        ),
        (b"a=1; Domain=example", b"sp.box.80.a=1; Path=/p/box/80/", b"a=1"),
        (b"a=1; dOmAiN =.example; Path=..", b"sp.box.80.a=1; Path=/p/box/80/", b"a=1; Path=.."),
        (b"a=1; Path=/; Path=/v1", b"sp.box.80.a=1; Path=/p/box/80/v1", b"a=1; Path=/; Path=/v1"),
    ],
)
def test_a_cookie_reaches_its_own_port_only(given_: bytes, shared: bytes, own: bytes) -> None:
    assert values(response_headers([(b"set-cookie", given_)], SHARED), b"set-cookie") == [shared]
    assert values(response_headers([(b"set-cookie", given_)], OWN), b"set-cookie") == [own]


@pytest.mark.parametrize("bad", [b"", b"a", b"=1", b"a b=1", b"; Path=/"])
def test_what_is_no_cookie_is_left_out(bad: bytes) -> None:
    assert values(response_headers([(b"set-cookie", bad)], SHARED), b"set-cookie") == []


@given(st.binary(max_size=60))
def test_no_cookie_of_a_shared_origin_leaves_its_name_and_path(value: bytes) -> None:
    for cookie in values(response_headers([(b"set-cookie", value)], SHARED), b"set-cookie"):
        assert cookie.startswith(b"sp.box.80.")
        attributes = [part.strip().lower() for part in cookie.split(b";")[1:]]
        paths = [part for part in attributes if part.partition(b"=")[0].strip() == b"path"]
        assert len(paths) == 1
        assert paths[0].startswith(b"path=/p/box/80/")
        assert not [part for part in attributes if part.partition(b"=")[0].strip() == b"domain"]


def test_a_page_of_a_shared_origin_is_given_an_origin_of_its_own() -> None:
    policies = values(
        response_headers([(b"content-security-policy", b"default-src *")], SHARED),
        b"content-security-policy",
    )
    assert policies == [b"default-src *", ISOLATION]
    assert b"allow-same-origin" not in ISOLATION
    assert values(response_headers([], OWN), b"content-security-policy") == []


@pytest.mark.parametrize(
    "name",
    [
        b"strict-transport-security",
        b"clear-site-data",
        b"alt-svc",
        b"service-worker-allowed",
        b"access-control-allow-credentials",
        b"report-to",
        b"connection",
        b"transfer-encoding",
    ],
)
def test_an_answer_cannot_speak_for_the_whole_server(name: bytes) -> None:
    assert values(response_headers([(name, b"x")], SHARED), name) == []


@pytest.mark.parametrize(
    ("location", "shared"),
    [
        (b"/login?next=/", b"/p/box/80/login?next=/"),
        (b"login", b"login"),
        (b"/p/box/80/there", b"/p/box/80/there"),
        (b"http://127.0.0.1:8400/login", b"/p/box/80/login"),
        (b"http://127.0.0.1:8400", b"/p/box/80/"),
        (b"http://127.0.0.1:84000/", b"http://127.0.0.1:84000/"),
        (b"https://elsewhere/", b"https://elsewhere/"),
        (b"//elsewhere/", b"//elsewhere/"),
        (b"/\\elsewhere/", b"/\\elsewhere/"),
    ],
)
def test_a_redirection_stays_below_the_port_s_prefix(location: bytes, shared: bytes) -> None:
    assert values(response_headers([(b"location", location)], SHARED), b"location") == [shared]
    assert values(response_headers([(b"location", location)], OWN), b"location") == [location]


def test_an_address_that_is_a_secret_is_not_told_to_other_sites() -> None:
    secret = Place(b"h", b"http", b"c", has_token=True)
    sent = [(b"referrer-policy", b"unsafe-url")]
    assert response_headers(sent, secret) == [(b"referrer-policy", b"no-referrer")]
    assert response_headers(sent, OWN) == sent


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"x", b"y")] * (MOST_HEADERS + 1),
    ],
)
def test_a_head_that_is_ambiguous_or_endless_is_refused(headers: Headers) -> None:
    with pytest.raises(BadGateway):
        check_response(headers)
