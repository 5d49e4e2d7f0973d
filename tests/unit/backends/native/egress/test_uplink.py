from __future__ import annotations

import pytest

from sandpool.backends.native.egress.uplink import Choice, Facts, choose, command, find_dropping

PASTA = {"pasta": "/usr/bin/pasta"}
SLIRP = {"slirp4netns": "/usr/bin/slirp4netns"}
DROPPING = "table ip filter, chain FORWARD"


@pytest.mark.parametrize(
    ("facts", "choice"),
    [
        (Facts(True, forwards=True), Choice("veth")),
        (Facts(True, forwards=True, programs=PASTA, has_tun=True), Choice("veth")),
        (Facts(True, programs=PASTA, has_tun=True), Choice("pasta", "/usr/bin/pasta")),
        (
            Facts(True, forwards=True, dropping=DROPPING, programs=PASTA, has_tun=True),
            Choice("pasta", "/usr/bin/pasta"),
        ),
        (
            Facts(False, forwards=True, programs={**SLIRP, **PASTA}, has_tun=True),
            Choice("pasta", "/usr/bin/pasta"),
        ),
        (
            Facts(False, programs=SLIRP, has_tun=True),
            Choice("slirp4netns", "/usr/bin/slirp4netns"),
        ),
    ],
)
def test_the_way_out_is_the_first_that_there_is(facts: Facts, choice: Choice) -> None:
    assert choose(facts) == choice


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (Facts(False), ["apt-get install passt"]),
        (Facts(False, forwards=True, has_tun=True), ["apt-get install passt"]),
        (Facts(False, programs=PASTA), ["chmod 0666 /dev/net/tun"]),
        (Facts(True), ["sysctl -w net.ipv4.ip_forward=1", "apt-get install passt"]),
        (Facts(True, forwards=True, dropping=DROPPING), [DROPPING, "apt-get install passt"]),
    ],
)
def test_where_there_is_none_every_remedy_is_named(facts: Facts, named: list[str]) -> None:
    choice = choose(facts)
    assert choice.kind is None
    assert choice.problem is not None
    assert all(words in choice.problem for words in named)


def test_only_a_chain_that_forwards_and_drops_is_in_the_way() -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD"}
    assert find_dropping([{**chain, "hook": "forward", "policy": "accept"}]) is None
    assert find_dropping([{**chain, "hook": "input", "policy": "drop"}]) is None
    assert find_dropping([chain]) is None
    assert find_dropping([chain, {**chain, "hook": "forward", "policy": "drop"}]) == DROPPING


def test_the_programs_get_nothing_of_the_hosts_own() -> None:
    pasta = command(Choice("pasta", "pasta"))
    assert "--no-map-gw" in pasta
    for option in ("-t", "-u", "-T", "-U"):
        assert pasta[pasta.index(option) + 1] == "none"
    slirp = command(Choice("slirp4netns", "slirp4netns"))
    assert {"--disable-host-loopback", "--disable-dns"} <= set(slirp)
