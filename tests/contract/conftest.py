"""The managers that the contract of `SandboxService` is held against."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandpool.backends.base import Backend
from sandpool.backends.docker import DockerBackend
from sandpool.client import HttpSandboxManager
from sandpool.manager.backends import BackendFactory
from sandpool.manager.local import LocalSandboxManager
from sandpool.server import ServerSettings, serving
from sandpool.service import SandboxService
from sandpool.testing import (
    Behaviour,
    FakeBackend,
    SimulatedBackend,
    Step,
    VirtualClock,
    exponential,
    fixed,
    lognormal,
)
from tests.conftest import ASYNCIO, Loop

FAKES = [
    pytest.param("fake", id="fake"),
    pytest.param("remote-fake", id="remote-fake"),
    pytest.param("simulated", id="simulated"),
]
PROCESSES = [
    pytest.param("native", id="native", marks=pytest.mark.namespaces),
    pytest.param("docker", id="docker", marks=pytest.mark.docker),
    # What it adds is the two together; each alone is in the quick run.
    pytest.param(
        "remote-native", id="remote-native", marks=[pytest.mark.namespaces, pytest.mark.slow]
    ),
]
"""Those whose sandboxes have what only processes have."""


SLOW = Behaviour(
    create=Step(lognormal(0.4, 1.5)),
    run=Step(exponential(0.05)),
    check=Step(fixed(0.01)),
    destroy=Step(fixed(0.2)),
)
"""How the simulated ones behave: nobody waits for it, as their time jumps."""

IN_CONTAINERS = {"host": "python:3.11-slim"}
"""What stands in a container engine for the image that the tests ask for."""


def _docker_backend() -> Backend:
    return DockerBackend(images=IN_CONTAINERS)


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """What time is for what is simulated."""
    return VirtualClock()


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest, virtual_clock: VirtualClock) -> Loop:
    """Choose the event loop: for what is simulated, the one that keeps the time of its clock."""
    if request.node.callspec.params.get("service") == "simulated":
        return "asyncio", {"loop_factory": virtual_clock.new_loop}
    loop: Loop = getattr(request, "param", ASYNCIO)
    return loop


@pytest.fixture(params=[*FAKES, *PROCESSES])
async def service(
    request: pytest.FixtureRequest, native_backend: BackendFactory, virtual_clock: VirtualClock
) -> AsyncIterator[SandboxService]:
    """A started manager; whatever a test leaves behind is gone after it."""
    if request.param == "simulated":
        backend = SimulatedBackend(SLOW, clock=virtual_clock)
        backends = {"native": lambda: backend}
        async with LocalSandboxManager(backends=backends, clock=virtual_clock) as manager:
            yield manager
        return
    async with _started(request.param, native_backend) as started:
        yield started


@pytest.fixture(params=PROCESSES)
async def process_service(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> AsyncIterator[SandboxService]:
    """The same, of sandboxes that are processes."""
    async with _started(request.param, native_backend) as started:
        yield started


@asynccontextmanager
async def _started(kind: str, native_backend: BackendFactory) -> AsyncGenerator[SandboxService]:
    makers = {"fake": FakeBackend, "native": native_backend, "docker": _docker_backend}
    make = makers[kind.removeprefix("remote-")]
    if not kind.startswith("remote"):
        async with LocalSandboxManager(backends={"native": make}) as manager:
            yield manager
        return
    async with (
        serving(ServerSettings(port=0), backends={"native": make}) as url,
        HttpSandboxManager(base_url=url) as remote,
    ):
        yield remote
