"""Deploying a definition: once, again, changed, and one that cannot be filled."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.deployment import deploy
from sandpool.errors import AcquireTimeout, InvalidSpec, PoolDegraded
from sandpool.models import HealthCheck
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio

SERVER = ("python3", "-m", "http.server", "8080")


def web(**changes: object) -> PoolSpec:
    """Return the definition of a pool of three web servers."""
    fields: dict[str, object] = {
        "name": "web",
        "entrypoint": SERVER,
        "ports": (8080,),
        "health_check": HealthCheck(kind="http"),
        "warm": 3,
    }
    return PoolSpec.model_validate({**fields, **changes})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backend(clock: ManualClock) -> FakeBackend:
    return FakeBackend(clock=clock)


@pytest.fixture
async def manager(clock: ManualClock, backend: FakeBackend) -> AsyncIterator[LocalSandboxManager]:
    async with LocalSandboxManager(backends={"native": lambda: backend}, clock=clock) as found:
        yield found


async def ids(manager: LocalSandboxManager) -> list[str]:
    return [entry.id for entry in await manager.check_pool("web")]


async def test_m17_what_is_deployed_is_full_and_good(manager: LocalSandboxManager) -> None:
    info = await deploy(manager, web())
    entries = await manager.check_pool("web", check_health=True)
    assert (info.ready, info.state) == (3, "open")
    assert [entry.healthy for entry in entries] == [True, True, True]


async def test_a_mended_definition_is_not_told_the_failure_of_the_last_one(
    manager: LocalSandboxManager,
) -> None:
    with pytest.raises(PoolDegraded):
        await deploy(manager, web(setup=("false",), create_retries=0))
    info = await deploy(manager, web())
    assert (info.state, info.ready) == ("open", 3)


async def test_the_same_again_starts_and_stops_nothing(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    await deploy(manager, web())
    before = await ids(manager)
    info = await deploy(manager, web())
    await clock.advance(1)
    assert await ids(manager) == before
    assert (info.ready, backend.created, backend.destroyed) == (3, 3, 0)


async def test_another_size_keeps_what_is_there(manager: LocalSandboxManager) -> None:
    await deploy(manager, web(warm=2))
    before = await ids(manager)
    assert (await deploy(manager, web(warm=4))).ready == 4
    assert (await ids(manager))[:2] == before


async def test_another_server_replaces_what_is_there(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    await deploy(manager, web())
    before = await ids(manager)
    info = await deploy(manager, web(setup=("true",)))
    assert info.spec.setup == ("true",)
    assert len(await ids(manager)) == 3
    assert not set(before) & set(await ids(manager))


async def test_what_is_lent_meanwhile_counts_as_there(manager: LocalSandboxManager) -> None:
    await deploy(manager, web(max=3))
    for _ in range(2):
        await manager.claim("web")
    assert (await deploy(manager, web(max=3))).leased == 2


async def test_what_cannot_be_filled_is_told_with_its_cause_and_stays_defined(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    spec = web(setup=("echo no such package >&2; exit 3",), create_retries=0)
    with pytest.raises(PoolDegraded, match="ended with 3: no such package"):
        await deploy(manager, spec)
    info = await manager.get_pool("web")
    assert (info.state, info.spec.setup) == ("degraded", spec.setup)
    assert backend.boxes == []


async def test_what_is_not_full_in_time_is_told_with_what_went_wrong_so_far(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    backend.fail_creates(1)
    backend.hang_creates(10)
    # This wait is the caller's own, so it is not on the pool's clock.
    with pytest.raises(AcquireTimeout) as caught:
        await deploy(manager, web(), timeout=0.05)
    said = "pool web has 0 of 3 sandboxes after 0.05s: CreateFailed: a fault was scripted"
    assert str(caught.value) == said


async def test_a_wait_that_is_given_up_leaves_the_pool_as_deployed(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    backend.hang_creates(3)
    with anyio.move_on_after(0.01) as scope:
        await deploy(manager, web())
    assert scope.cancelled_caught
    assert (await manager.get_pool("web")).creating == 3


async def test_what_is_refused_leaves_the_pool_as_it_was(manager: LocalSandboxManager) -> None:
    await deploy(manager, web())
    before = await ids(manager)
    with pytest.raises(InvalidSpec, match="there is no secret 'OTHER'"):
        await deploy(manager, web(secret_names=("OTHER",)))
    assert (await manager.get_pool("web")).spec == web()
    assert await ids(manager) == before
