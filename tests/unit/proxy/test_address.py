"""Addresses have one spelling, and what could be read in two ways is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import BadAddress, InvalidSpec, Misdirected
from sandpool.models import NAME_PATTERN
from sandpool.proxy.address import Address, check_path, is_below_prefix, parse_host, parse_path

TOKEN = "0123456789abcdef0123456789abcdef"
DOMAIN = "box.example"

sandboxes = st.from_regex(re.compile(NAME_PATTERN), fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
ports = st.integers(1, 65_535)
tokens = st.none() | st.from_regex(r"[0-9a-f]{32}", fullmatch=True)


@given(sandboxes, ports, tokens)
def test_a_path_is_read_as_it_was_written(sandbox: str, port: int, token: str | None) -> None:
    address = Address(sandbox, port, token)
    assert parse_path(address.path.encode() + b"/a?b".partition(b"?")[0]) == (address, b"/a")
    assert parse_path(address.path.encode()) == (address, b"")


@given(labels.filter(lambda text: "--" not in text), ports, tokens)
def test_a_host_name_is_read_as_it_was_written(sandbox: str, port: int, token: str | None) -> None:
    address = Address(sandbox, port, token)
    assert parse_host(f"{address.label}.{DOMAIN}", DOMAIN) == address


@pytest.mark.parametrize(
    "raw",
    [
        b"/p",
        b"/p/",
        b"/p/box",
        b"/p/box/",
        b"/p/box/http/",
        b"/p/box/0/",
        b"/p/box/08080/",
        b"/p/box/+80/",
        b"/p/box/65536/",
        b"/p/BOX/80/",
        b"/p//80/",
        b"//p/box/80/",
        b"/p/../80/",
        b"/p/./80/",
        b"/p/b%6fx/80/",
        b"/%70/box/80/",
        b"/p/box/80%2f",
        b"/p/box\n/80/",
        b"/p/box~/80/",
        b"/p/box~short/80/",
        b"/p/box~" + TOKEN.upper().encode() + b"/80/",
        b"http://elsewhere/p/box/80/",
        b"*",
    ],
)
def test_a_path_of_another_spelling_is_refused(raw: bytes) -> None:
    with pytest.raises(BadAddress):
        parse_path(raw)


@pytest.mark.parametrize(
    "rest",
    [
        b"/..",
        b"/../",
        b"/a/../..",
        b"/%2e%2e/v1/pools",
        b"/.%2E/",
        b"/a/..%2f..%2f..",
        b"/a\\..\\..",
        b"/a/%5c..%5c../..",
        b"/./..",
        b"//..",
    ],
)
def test_a_path_that_climbs_out_of_its_port_is_refused(rest: bytes) -> None:
    with pytest.raises(BadAddress):
        check_path(rest)
    with pytest.raises(BadAddress):
        parse_path(b"/p/box/80" + rest)


@pytest.mark.parametrize("rest", [b"", b"/", b"/a/../b", b"/...", b"/a..b", b"/%2e", b"/..a/.."])
def test_a_path_that_stays_inside_is_passed_on_as_it_is(rest: bytes) -> None:
    assert parse_path(b"/p/box/80" + rest) == (Address("box", 80), rest)


@pytest.mark.parametrize("raw", [b"*", b"example.org:80", b"http://box.example/"])
def test_a_target_that_is_no_path_is_refused(raw: bytes) -> None:
    with pytest.raises(BadAddress):
        check_path(raw)


@pytest.mark.parametrize("host", [DOMAIN, "localhost", "xbox.example", "80-box.example", "box"])
def test_a_name_that_is_not_below_the_domain_is_no_address(host: str) -> None:
    assert parse_host(host, DOMAIN) is None


@pytest.mark.parametrize(
    "label",
    [
        "www",
        "80",
        "80-",
        "-80-box",
        "080-box",
        "0-box",
        "65536-box",
        "80-box.80-other",
        "80-box-",
        "80-box_",
        "80-bóx",
        "80-" + "b" * 61,
        "",
    ],
)
def test_any_other_name_below_the_domain_is_misdirected(label: str) -> None:
    with pytest.raises(Misdirected):
        parse_host(f"{label}.{DOMAIN}", DOMAIN)


@pytest.mark.parametrize("sandbox", ["a.b", "a_b", "a" * 40])
def test_a_sandbox_whose_id_is_no_label_has_no_host_name(sandbox: str) -> None:
    with pytest.raises(InvalidSpec, match="host name"):
        _ = Address(sandbox, 65_535, TOKEN).label


def test_what_is_badly_spelt_below_the_prefix_is_still_below_it() -> None:
    assert all(map(is_below_prefix, ["/p", "/p/", "/p/BOX/0"]))
    assert not any(map(is_below_prefix, ["/", "/pools", "/v1/p/box/80", "//p/box/80"]))
