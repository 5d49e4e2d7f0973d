"""The names of images mean what they mean everywhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import InvalidSpec
from sandpool.images.reference import Reference

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "name"),
    [
        ("python", "docker.io", "library/python", "latest", "python:latest"),
        ("python:3.11-slim", "docker.io", "library/python", "3.11-slim", "python:3.11-slim"),
        ("docker.io/python:3", "docker.io", "library/python", "3", "python:3"),
        ("index.docker.io/team/app", "docker.io", "team/app", "latest", "team/app:latest"),
        ("localhost/app:1", "localhost", "app", "1", "localhost/app:1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", "latest", "127.0.0.1:5000/a/b:latest"),
        ("ghcr.io/o/r__x:T.1", "ghcr.io", "o/r__x", "T.1", "ghcr.io/o/r__x:T.1"),
        (f"app@{DIGEST}", "docker.io", "library/app", None, "app"),
        (f"app:1@{DIGEST}", "docker.io", "library/app", "1", "app:1"),
    ],
)
def test_a_reference_is_read(
    text: str, registry: str, repository: str, tag: str | None, name: str
) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag) == (registry, repository, tag)
    assert found.name == name
    assert found.digest == (DIGEST if "@" in text else None)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", "/a", "a/", "a//b", "A", "a b", "a\n", "a:b:c", "a@sha256:0", "a@",
        f"a@{DIGEST}0", "a@md5:" + "0" * 32, "../a", "a/../b", "a:" + "t" * 129, "n" * 256,
        "-a", "a:.t", "reg_istry.example/a", "x:99999999/a", "a\0b", "é",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpec):
        Reference.parse(text)


@given(st.text(max_size=80))
def test_what_is_taken_means_the_same_when_it_is_written_again(text: str) -> None:
    try:
        found = Reference.parse(text)
    except InvalidSpec:
        return
    assert Reference.parse(str(found)) == found
