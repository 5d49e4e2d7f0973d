"""What a manager tells about who is in a pool, and how it replaces those who wait."""

from __future__ import annotations

import pytest

from sandpool.errors import PoolNotFound
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio


def manager() -> LocalSandboxManager:
    return LocalSandboxManager(backends={"native": FakeBackend})


async def test_members_are_ready_until_they_are_claimed_and_gone_when_they_are_deleted() -> None:
    async with manager() as here:
        await here.create_pool(PoolSpec(name="pool", warm=1, max=1))
        await here.wait_pool_warm("pool")
        (ready,), claimed = here.pool_membership("pool")
        assert claimed == []
        sandbox = await here.claim("pool")
        assert here.pool_membership("pool") == ([], [ready])
        assert sandbox.id == ready
        await here.delete_sandbox(ready)
        await here.wait_pool_warm("pool")
        (successor,), claimed = here.pool_membership("pool")
        assert successor != ready
        assert claimed == []


async def test_a_sandbox_that_is_lent_for_a_time_is_neither_ready_nor_claimed() -> None:
    async with manager() as here:
        await here.create_pool(PoolSpec(name="pool", warm=1, max=1))
        async with here.lease("pool"):
            assert here.pool_membership("pool") == ([], [])


async def test_replacing_the_idle_ones_leaves_claimed_ones_alone() -> None:
    async with manager() as here:
        await here.create_pool(PoolSpec(name="pool", warm=1, max=2))
        sandbox = await here.claim("pool")
        await here.wait_pool_warm("pool")
        before = here.pool_membership("pool")
        here.replace_idle("pool")
        await here.wait_pool_warm("pool")
        after = here.pool_membership("pool")
        assert after.claimed == before.claimed == [sandbox.id]
        assert after.ready[0] not in before.ready
        assert len(after.ready) == 1


async def test_an_unknown_pool_has_no_members_to_tell_of() -> None:
    async with manager() as here:
        with pytest.raises(PoolNotFound):
            here.pool_membership("pool")
        with pytest.raises(PoolNotFound):
            here.replace_idle("pool")
