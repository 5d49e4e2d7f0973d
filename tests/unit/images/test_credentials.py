"""Which credentials there are for a registry, and who may be shown them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from sandpool.images import challenge, credentials
from sandpool.images.credentials import Credentials

AUTH = base64.b64encode(b"me:secret:word").decode()


@pytest.mark.parametrize(
    ("document", "registry", "user"),
    [
        ({"auths": {"r.example": {"auth": AUTH}}}, "r.example", "me"),
        ({"auths": {"https://r.example": {"auth": AUTH}}}, "r.example", "me"),
        ({"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}, "docker.io", "me"),
        ({"auths": {"r.example": {"username": "u", "password": "p"}}}, "r.example", "u"),
        ({"auths": {"r.example": {"auth": AUTH}}}, "r.example:444", None),
        ({"auths": {"r.example": {"auth": AUTH}}}, "example", None),
        ({"auths": {"r.example": {"auth": "not base 64"}}}, "r.example", None),
        ({"auths": {"r.example": {"auth": base64.b64encode(b"x").decode()}}}, "r.example", None),
        ({"auths": []}, "r.example", None),
        ({"credHelpers": {"r.example": "evil"}}, "r.example", None),
        ([], "r.example", None),
        (None, "r.example", None),
    ],
)
def test_a_file_of_dockers_says_who_we_are(
    document: object, registry: str, user: str | None
) -> None:
    found = credentials.find(document, registry)
    assert (found.user if found else None) == user


def test_a_password_may_have_colons_and_is_never_shown() -> None:
    found = credentials.find({"auths": {"r.example": {"auth": AUTH}}}, "r.example")
    assert found == Credentials("me", "secret:word")
    assert "secret" not in repr(found)


def test_a_file_that_is_none_counts_as_empty(tmp_path: Path) -> None:
    assert credentials.read(tmp_path / "missing", "r.example") is None
    broken = tmp_path / "config.json"
    broken.write_bytes(b"[" * 100_000)
    assert credentials.read(broken, "r.example") is None


def test_the_file_is_where_docker_has_it() -> None:
    assert credentials.config_path({"DOCKER_CONFIG": "/d"}) == Path("/d/config.json")


@pytest.mark.parametrize(
    ("realm", "registry", "may"),
    [
        ("https://auth.docker.io/token", "registry-1.docker.io", True),
        ("https://ghcr.io/token", "ghcr.io", True),
        ("https://gitlab.example.com/jwt", "registry.example.com:5050", True),
        ("http://auth.docker.io/token", "registry-1.docker.io", False),
        ("https://evil.example/token", "registry-1.docker.io", False),
        ("https://docker.io.evil.example/token", "registry-1.docker.io", False),
        ("https://evil.co.uk/token", "registry.co.uk", False),
        ("https://a.team.co.uk/token", "b.team.co.uk", True),
        ("https://10.0.0.2/token", "10.0.0.1", False),
        ("https://io/token", "io", True),
        ("https://other/token", "here", False),
        ("ftp://ghcr.io/token", "ghcr.io", False),
        ("https://[broken/token", "ghcr.io", False),
        ("https://ghcr.io:notaport/", "ghcr.io", False),
        ("", "ghcr.io", False),
    ],
)
def test_a_password_goes_to_its_registry_and_its_domain_only(
    realm: str, registry: str, may: bool
) -> None:
    assert challenge.may_know_password(realm, registry, is_plain=False) is may


def test_without_encryption_a_password_stays_on_its_own_port_of_this_machine() -> None:
    assert challenge.may_know_password("http://127.0.0.1:5000/t", "127.0.0.1:5000", is_plain=True)
    assert not challenge.may_know_password(
        "http://127.0.0.1:5001/t", "127.0.0.1:5000", is_plain=True
    )


@pytest.mark.parametrize(
    ("header", "scheme", "realm", "service"),
    [
        ('Bearer realm="https://a/t",service="s",scope="x"', "bearer", "https://a/t", "s"),
        ('bearer service="s", realm="https://a/t"', "bearer", "https://a/t", "s"),
        ('Basic realm="r"', "basic", "r", ""),
        ("Bearer", "bearer", "", ""),
    ],
)
def test_a_challenge_is_read(header: str, scheme: str, realm: str, service: str) -> None:
    found = challenge.parse(header)
    assert found is not None
    assert (found.scheme, found.realm, found.service) == (scheme, realm, service)


@pytest.mark.parametrize("header", ["", "Negotiate", "Digest realm=x"])
def test_a_challenge_that_we_do_not_know_is_none(header: str) -> None:
    assert challenge.parse(header) is None
