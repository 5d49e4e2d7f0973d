from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandpool.backends.native.egress.rules import (
    GUARDED,
    LINKS,
    RESOLVER,
    Opening,
    Protocol,
    Step,
    gate_ruleset,
    host_ruleset,
    host_update,
    is_guarded,
    is_listed,
    is_open,
    learn,
    steps,
)

HOST = IPv4Address("192.0.2.10")

# Few enough that networks, addresses and guarded ranges often meet.
ADDRESSES = st.sampled_from(
    [
        HOST,
        IPv4Address("192.0.2.11"),
        IPv4Address("10.1.2.3"),
        IPv4Address("10.1.2.4"),
        IPv4Address("10.200.0.1"),
        IPv4Address("169.254.169.254"),
        IPv4Address("172.16.0.1"),
        IPv4Address("172.32.0.1"),
        IPv4Address("198.18.0.1"),
        IPv4Address("203.0.113.5"),
        IPv4Address("8.8.8.8"),
    ]
)
NETWORKS = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    ADDRESSES,
    st.integers(0, 32),
)
PORTS = st.integers(1, 65_535)
RANGES = st.lists(st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair))), max_size=3).map(
    tuple
)
PROTOCOLS: st.SearchStrategy[tuple[Protocol, ...]] = st.sampled_from(
    [("tcp",), ("udp",), ("tcp", "udp")]
)
OPENINGS = st.lists(st.builds(Opening, NETWORKS, st.just(""), RANGES, PROTOCOLS), max_size=6)


def opening(host: str, *ports: tuple[int, int]) -> Opening:
    if host[0].isdigit():
        return Opening(IPv4Network(host), "", ports, ("tcp",))
    return Opening(None, host, ports, ("tcp",))


def follow(
    found: Sequence[Step],
    address: IPv4Address,
    protocol: Protocol,
    port: int,
    host: Sequence[IPv4Address],
) -> bool:
    """Return what the first step that matches says, as nftables would."""
    for step in found:
        if step.opening is None:
            matches = (
                address in host
                if step.guards_host
                else any(address in guarded for guarded in GUARDED)
            )
        else:
            network = step.opening.network
            matches = (
                network is not None and address in network and step.opening.admits(protocol, port)
            )
        if matches:
            return step.is_open
    return False


@given(OPENINGS, ADDRESSES, st.sampled_from(["tcp", "udp"]), PORTS, st.lists(ADDRESSES, max_size=3))
@example([opening("0.0.0.0/0")], HOST, "tcp", 80, [HOST])
@example([opening("10.0.0.0/8")], IPv4Address("10.1.2.3"), "tcp", 80, [IPv4Address("10.1.2.3")])
@example([opening("10.1.2.3")], IPv4Address("10.1.2.3"), "tcp", 80, [IPv4Address("10.1.2.3")])
@example([opening("8.0.0.0/5")], IPv4Address("10.1.2.3"), "tcp", 80, [])
def test_the_first_step_that_matches_says_what_the_policy_says(
    openings: list[Opening],
    address: IPv4Address,
    protocol: Protocol,
    port: int,
    host: list[IPv4Address],
) -> None:
    decided = is_open(openings, address, protocol, port, host=host)
    assert follow(steps(openings), address, protocol, port, host) == decided


@given(OPENINGS, ADDRESSES, PORTS, st.lists(ADDRESSES, max_size=3))
def test_what_is_open_is_listed_and_guarded_ground_only_by_itself(
    openings: list[Opening], address: IPv4Address, port: int, host: list[IPv4Address]
) -> None:
    if not is_open(openings, address, "tcp", port, host=host):
        return
    assert is_listed(openings, address, host)
    if is_guarded(address, host):
        named = [found.network for found in openings if found.network and address in found.network]
        ranges = [guarded for guarded in GUARDED if address in guarded]
        own = [IPv4Network(address)] if address in host else []
        assert any(
            all(network.subnet_of(guarded) for guarded in (*ranges, *own)) for network in named
        )


@pytest.mark.parametrize(
    ("host", "address", "is_reached"),
    [
        ("0.0.0.0/0", "8.8.8.8", True),
        ("0.0.0.0/0", "10.1.2.3", False),
        ("0.0.0.0/0", "169.254.169.254", False),
        ("0.0.0.0/0", "192.0.2.10", False),
        ("192.0.2.0/24", "192.0.2.10", False),
        ("192.0.2.10", "192.0.2.10", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("8.0.0.0/5", "10.1.2.3", False),
    ],
)
def test_guarded_ground_is_opened_only_from_within(
    host: str, address: str, is_reached: bool
) -> None:
    decided = is_open([opening(host)], IPv4Address(address), "tcp", 80, host=[HOST])
    assert decided is is_reached


def test_the_guarded_ranges_are_disjoint_and_have_our_own_links() -> None:
    assert not any(one.overlaps(other) for one, other in combinations(GUARDED, 2))
    assert LINKS in GUARDED
    assert RESOLVER in LINKS


@pytest.mark.parametrize(
    ("pattern", "name", "is_one"),
    [
        ("pypi.org", "pypi.org", True),
        ("pypi.org", "www.pypi.org", False),
        ("*.pypi.org", "www.pypi.org", True),
        ("*.pypi.org", "a.b.pypi.org", True),
        ("*.pypi.org", "pypi.org", False),
        ("*.pypi.org", ".pypi.org", False),
        ("*.pypi.org", "notpypi.org", False),
        ("*", "anything.example", True),
    ],
)
def test_a_wildcard_names_all_below_it_and_not_itself(
    pattern: str, name: str, is_one: bool
) -> None:
    assert opening(pattern).names(name) is is_one


def test_a_network_names_nothing() -> None:
    assert not opening("203.0.113.0/24").names("203.0.113.5")
    assert not opening("203.0.113.0/24").names("")


def test_openings_survive_the_way_to_the_gateway() -> None:
    for found in (opening("10.0.0.0/8", (80, 80), (1000, 2000)), opening("*.pypi.org")):
        assert Opening.parse(found.as_plain()) == found


def test_a_gates_ruleset_denies_by_default_and_has_its_guards_before_what_is_wide() -> None:
    text = gate_ruleset(
        [opening("0.0.0.0/0", (443, 443)), opening("10.1.0.0/16"), opening("pypi.org", (80, 80))],
        [HOST],
    )
    listed = text.partition("chain listed {")[2].partition("}\nchain")[0]
    order = [
        listed.index(part)
        for part in ("@host", "ip daddr 10.1.0.0/16", "@guarded", "0.0.0.0/0", "@name2")
    ]
    assert order == sorted(order)
    assert text.count("policy drop") == 2
    assert "elements = { 192.0.2.10 }" in text
    assert not re.search(r"policy accept", text)


def test_ranges_of_ports_that_overlap_are_one() -> None:
    text = gate_ruleset([opening("203.0.113.5", (1, 10), (5, 20), (21, 21), (443, 443))], [])
    assert "th dport { 1-21, 443 }" in text


def test_the_host_is_open_only_to_what_is_one_address() -> None:
    openings = [opening("192.0.2.10", (80, 80)), opening("0.0.0.0/0"), opening("pypi.org")]
    text = host_ruleset("sandpool-1", "sandpool0", IPv4Address("198.19.4.2"), openings)
    chain = text.partition("chain input {")[2].partition("}\nchain")[0]
    accepted = [line for line in chain.splitlines() if line.endswith("accept")]
    assert accepted == [
        'iifname != "sandpool0" accept',
        "ct state established,related accept",
        "ip daddr 192.0.2.10/32 meta l4proto { tcp } th dport { 80 } accept",
    ]
    assert chain.strip().endswith("drop")
    assert "flags owner;" in text


def test_the_hosts_addresses_are_replaced_whole() -> None:
    assert host_update([HOST]).splitlines() == [
        "flush set inet sandpool host",
        "add element inet sandpool host { 192.0.2.10 }",
    ]
    assert host_update([]) == "flush set inet sandpool host"


def test_an_address_that_is_learnt_again_gets_its_time_anew() -> None:
    assert learn(3, [HOST], 60).splitlines() == [
        "add element inet sandpool name3 { 192.0.2.10 }",
        "delete element inet sandpool name3 { 192.0.2.10 }",
        "add element inet sandpool name3 { 192.0.2.10 timeout 60s }",
    ]
