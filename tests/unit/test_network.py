"""A policy is one value, the same in Python, JSON and TOML, and what is no policy is no value."""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Network
from typing import Any

import pytest
from pydantic import ValidationError

from sandpool.models import Destination, Network, PoolSpec

TOML = """
name = "one"
network.allow = [
    "pypi.org",
    {host = "*.pythonhosted.org", ports = [443]},
    {host = "10.1.0.0/16", ports = ["8000-8099", 9000], protocol = "udp"},
]
"""


def test_a_policy_is_the_same_in_python_json_and_toml() -> None:
    network = Network(
        allow=(
            Destination(host="pypi.org"),
            Destination(host="*.pythonhosted.org", ports=(443,)),
            Destination(host="10.1.0.0/16", ports=("8000-8099", 9000), protocol="udp"),
        )
    )
    spec = PoolSpec.model_validate(tomllib.loads(TOML))
    assert spec.network == network
    assert PoolSpec.model_validate_json(spec.model_dump_json()) == spec


def test_there_is_no_network_by_default() -> None:
    assert PoolSpec(name="one").network is None


def test_a_destination_is_open_by_tcp_and_on_every_port_unless_it_says() -> None:
    destination = Destination(host="PyPI.org")
    assert (destination.host, destination.port_ranges) == ("pypi.org", ())
    assert destination.protocol == "tcp"
    assert destination.network is None


@pytest.mark.parametrize(
    ("host", "network"),
    [("203.0.113.5", "203.0.113.5/32"), ("10.0.0.0/8", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0")],
)
def test_an_address_is_a_network_of_one(host: str, network: str) -> None:
    assert Destination(host=host).network == IPv4Network(network)


@pytest.mark.parametrize(
    "host", ["pypi.org", "*.pypi.org", "*", "localhost", "xn--bcher-kva.example"]
)
def test_names_and_wildcards_are_hosts(host: str) -> None:
    assert Destination(host=host).network is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"allow": []}, "allow"),
        ({}, "allow"),
        ({"allow": ["pypi.org"], "deny": []}, "deny"),
        ({"allow": "pypi.org"}, "allow"),
        ({"allow": [7]}, "allow.0"),
        ({"allow": [{"host": "pypi.org", "port": 443}]}, "allow.0.port"),
        ({"allow": [{"ports": [443]}]}, "allow.0.host"),
        ({"allow": ["pypi.org:443"]}, "ports have a field of their own"),
        ({"allow": ["2001:db8::1"]}, "IPv6 is closed"),
        ({"allow": ["10.0.0.1/8"]}, "host bits"),
        ({"allow": ["10.0.0"]}, "not an IPv4 address"),
        ({"allow": ["1.2.3.4.5"]}, "not an IPv4 address"),
        ({"allow": ["127.0.0.1"]}, "cannot be reached"),
        ({"allow": ["224.0.0.1"]}, "cannot be reached"),
        ({"allow": ["198.18.0.1"]}, "cannot be reached"),
        ({"allow": ["*pypi.org"]}, "not a host name"),
        ({"allow": ["*.*.org"]}, "not a host name"),
        ({"allow": ["pypi..org"]}, "not a host name"),
        ({"allow": ["pypi.org."]}, "not a host name"),
        ({"allow": ["-a.org"]}, "not a host name"),
        ({"allow": ["bücher.example"]}, "not a host name"),
        ({"allow": ["https://pypi.org"]}, "neither a name nor an IPv4 address"),
        ({"allow": ["pypi.org/simple"]}, "not a host name"),
        ({"allow": ["a" * 64 + ".org"]}, "not a host name"),
        ({"allow": [{"host": "pypi.org", "ports": [0]}]}, "ports"),
        ({"allow": [{"host": "pypi.org", "ports": [65536]}]}, "ports"),
        ({"allow": [{"host": "pypi.org", "ports": ["9-8"]}]}, "not a range of ports"),
        ({"allow": [{"host": "pypi.org", "ports": ["1-65536"]}]}, "not a range of ports"),
        ({"allow": [{"host": "pypi.org", "ports": ["http"]}]}, "ports"),
        ({"allow": [{"host": "pypi.org", "ports": list(range(1, 18))}]}, "ports"),
        ({"allow": [{"host": "pypi.org", "protocol": "icmp"}]}, "protocol"),
        ({"allow": ["pypi.org"] * 257}, "allow"),
    ],
)
def test_what_is_no_policy_is_refused_by_the_name_of_what_is_wrong(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Network.model_validate(fields)
    places = [".".join(map(str, fault["loc"])) for fault in refused.value.errors()]
    assert said in str(refused.value) or any(said in place for place in places)


def test_containers_have_no_allow_list() -> None:
    with pytest.raises(ValidationError, match="needs native sandboxes"):
        PoolSpec(name="one", backend="docker", network=Network(allow=(Destination(host="a.b"),)))
