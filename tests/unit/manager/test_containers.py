"""What a container's configuration asks for, and what the manager's policy says to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandpool.backends.base import ContainerSpec, PublishedPort, Volume
from sandpool.errors import InvalidSpec
from sandpool.manager.containers import container_spec
from sandpool.models import ContainerPolicy, DockerSandboxConfig

STRICT = ContainerPolicy()


def spec_of(policy: ContainerPolicy = STRICT, **fields: Any) -> ContainerSpec:
    return container_spec(DockerSandboxConfig(**fields), policy)


def test_nothing_that_was_not_asked_for_is_given() -> None:
    assert spec_of() == ContainerSpec()


@pytest.mark.parametrize(
    ("fields", "network"),
    [
        ({"network_enabled": True}, "bridge"),
        ({"network": "bridge"}, "bridge"),
        ({"network": "mine", "network_enabled": True}, "mine"),
        ({"network": "mine", "network_enabled": False}, None),
        ({"network": "none"}, None),
        ({"network": None, "network_enabled": True}, None),
        ({"network_enabled": False}, None),
    ],
)
def test_a_network_is_joined_when_it_is_asked_for(
    fields: dict[str, Any], network: str | None
) -> None:
    assert spec_of(**fields).network == network


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (None, ()),
        ("serve --port 1 | tee log", ("/bin/sh", "-c", "serve --port 1 | tee log")),
        (["serve", "a b"], ("serve", "a b")),
    ],
)
def test_a_command_is_run_by_a_shell_if_it_is_one_string(
    command: Any, argv: tuple[str, ...]
) -> None:
    assert spec_of(command=command).command == argv


@pytest.mark.parametrize(
    ("port", "place", "published"),
    [
        ("80", 8080, PublishedPort(port="80/tcp", host_port=8080)),
        ("80/udp", "8080", PublishedPort(port="80/udp", host_port=8080)),
        ("80/tcp", None, PublishedPort(port="80/tcp")),
        ("80/tcp", ("0.0.0.0", 81), PublishedPort(port="80/tcp", host="0.0.0.0", host_port=81)),
    ],
)
def test_a_port_is_published_on_loopback_unless_somebody_says_where(
    port: str, place: Any, published: PublishedPort
) -> None:
    assert spec_of(network="bridge", ports={port: place}).ports == (published,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"privileged": True}, "privileged: this manager refuses"),
        ({"network": "host"}, "network: this manager refuses"),
        ({"network": "container:abc"}, "is not the name of a network"),
        ({"ports": {"80": 80}}, "ports: a container without a network"),
        ({"extra_hosts": {"a": "192.0.2.1"}}, "extra_hosts: a container without a network"),
        ({"network": "bridge", "ports": {"http": 80}}, "ports: 'http'"),
        ({"network": "bridge", "ports": {"99999": 80}}, "ports: '99999'"),
        ({"network": "bridge", "ports": {"80": 99999}}, "ports: 99999"),
        ({"network": "bridge", "ports": {"80": "here"}}, "ports: 'here'"),
        ({"platform": "linux; rm"}, "platform"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        spec_of(**fields)


def test_the_policy_allows_what_it_names() -> None:
    assert spec_of(ContainerPolicy(privileged=True), privileged=True).privileged
    assert spec_of(ContainerPolicy(host_network=True), network="host").network == "host"


def test_a_volume_lies_below_an_allowed_directory(tmp_path: Path) -> None:
    policy = ContainerPolicy(volume_roots=(str(tmp_path),))
    below = str(tmp_path / "data")
    assert spec_of(policy, volumes={below: {"bind": "/data", "mode": "rw"}}).volumes == (
        Volume(source=below, target="/data", is_writable=True),
    )
    assert spec_of(policy, volumes={below: {"bind": "/data"}}).volumes[0].is_writable is False


@pytest.mark.parametrize("path", ["..", "../beside", "link", "link/passwd"])
def test_no_way_leads_out_of_the_allowed_directories(tmp_path: Path, path: str) -> None:
    root = tmp_path / "allowed"
    root.mkdir()
    (tmp_path / "allowed-not").mkdir()
    (root / "link").symlink_to("/etc")
    policy = ContainerPolicy(volume_roots=(str(root),))
    for source in (str(root / path), str(tmp_path / "allowed-not"), "/"):
        with pytest.raises(InvalidSpec, match="lies below no directory"):
            spec_of(policy, volumes={source: {"bind": "/data"}})


@pytest.mark.parametrize(
    "how", [{}, {"bind": "data"}, {"bind": "/"}, {"bind": "/data", "mode": "rwx"}, {"to": "/data"}]
)
def test_a_volume_has_a_place_and_a_mode(tmp_path: Path, how: dict[str, str]) -> None:
    policy = ContainerPolicy(volume_roots=(str(tmp_path),))
    with pytest.raises(InvalidSpec, match="volumes: "):
        spec_of(policy, volumes={str(tmp_path): how})
