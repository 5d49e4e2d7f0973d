"""What a manager tells of its pools to who listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.manager.event import PoolEvent
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio


@dataclass
class World:
    """A manager with one pool, and all that it has told."""

    manager: LocalSandboxManager
    backend: FakeBackend
    clock: ManualClock
    heard: list[PoolEvent] = field(default_factory=list[PoolEvent])

    def kinds(self) -> list[str]:
        return [event.kind for event in self.heard]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    backend, clock, heard = FakeBackend(), ManualClock(), list[PoolEvent]()
    manager = LocalSandboxManager(
        backends={"native": lambda: backend}, clock=clock, on_event=heard.append
    )
    async with manager:
        await manager.create_pool(PoolSpec(name="p", warm=1, max=2, create_retries=0))
        await manager.wait_pool_warm("p")
        yield World(manager, backend, clock, heard)


async def test_a_pool_is_told_of_from_its_beginning_to_its_end(world: World) -> None:
    spec = (await world.manager.get_pool("p")).spec
    await world.manager.update_pool("p", spec.model_copy(update={"max": 3}))
    await world.manager.delete_pool("p")
    assert world.kinds() == ["pool.created", "pool.updated", "pool.deleted"]


async def test_a_loan_is_told_of_by_the_ids_of_its_sandbox_and_lease(world: World) -> None:
    async with world.manager.lease("p") as sandbox:
        leased = world.heard[-1]
        assert (leased.kind, leased.pool, leased.sandbox_id) == ("sandbox.leased", "p", sandbox.id)
    released = world.heard[-1]
    assert (released.kind, released.detail) == ("sandbox.released", "released")
    assert (released.sandbox_id, released.lease_id) == (leased.sandbox_id, leased.lease_id)


async def test_a_claim_is_a_loan_for_good(world: World) -> None:
    sandbox = await world.manager.claim("p")
    assert world.kinds()[1:] == ["sandbox.leased", "sandbox.claimed"]
    assert {event.sandbox_id for event in world.heard[1:]} == {sandbox.id}


async def test_a_claim_that_runs_out_has_expired(world: World) -> None:
    await world.manager.claim("p", lifetime=5)
    await world.clock.advance(6)
    assert world.kinds()[-1] == "sandbox.expired"


async def test_a_sandbox_that_dies_in_somebodys_hands_has_died_before_it_is_released(
    world: World,
) -> None:
    sandbox = await world.manager.claim("p")
    world.backend.box(sandbox.id).die()
    assert "sandbox.died" in world.kinds()
    assert world.heard[world.kinds().index("sandbox.died")].sandbox_id == sandbox.id


async def test_a_pool_that_cannot_make_sandboxes_says_so_and_says_when_it_can_again(
    world: World,
) -> None:
    world.backend.fail_creates()
    await world.manager.claim("p")
    for _ in range(20):
        await world.clock.advance(1)
    assert world.kinds().index("pool.create_failed") < world.kinds().index("pool.degraded")
    world.backend.mend()
    for _ in range(60):
        await world.clock.advance(1)
    assert "pool.healed" in world.kinds()
