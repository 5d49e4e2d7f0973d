"""A Docker backend for each test, and a check that it leaves no container behind."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandpool.backends.base import BoxSpec
from sandpool.backends.docker import DockerBackend

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


_REGISTRY = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Run a registry on loopback, which every engine trusts; its host and port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no docker-registry (Debian: apt-get install docker-registry)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    configuration = tmp_path / "registry.yml"
    configuration.write_text(_REGISTRY.format(root=tmp_path / "registry", port=port))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(configuration)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail("docker-registry ended before it served")
