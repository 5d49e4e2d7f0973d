"""A Docker backend for each test, and a check that it leaves no container behind."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandpool.backends.base import BoxSpec
from sandpool.backends.docker import DockerBackend
from tests import registries

SPEC = BoxSpec(image="python:3.11-slim")


def docker(*arguments: str) -> str:
    """Run the engine's own client and return what it prints."""
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def containers() -> set[str]:
    """Return the names of all containers, running or not."""
    return set(docker("ps", "--all", "--format", "{{.Names}}").split())


@pytest.fixture
async def backend() -> AsyncIterator[DockerBackend]:
    before = containers()
    backend = DockerBackend()
    yield backend
    await backend.aclose()
    assert containers() <= before


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Run a registry on loopback, which every engine trusts; its host and port."""
    with registries.running(tmp_path) as address:
        yield address
