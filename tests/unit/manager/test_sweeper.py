"""The background sweep: whom it removes, and that it removes them in time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool import LocalSandboxManager, PoolSpec, SandboxConfig, SandboxManagerConfig, SandboxType
from sandpool.manager.sweeper import Ages, Candidate, Sweeper, is_overdue
from sandpool.models import SandboxStatus
from sandpool.testing import FakeBackend, ManualClock

HOUR = 3600.0
AGES = Ages(running=48 * HOUR, stopped=HOUR)
NATIVE = SandboxType.NATIVE


def candidate(status: SandboxStatus, age: float, is_in_use: bool = False) -> Candidate:
    return Candidate(id="x", status=status, age=age, is_in_use=is_in_use)


@pytest.mark.parametrize(
    ("status", "limit"),
    [
        (SandboxStatus.RUNNING, 48 * HOUR),
        (SandboxStatus.STOPPED, HOUR),
        (SandboxStatus.ERROR, HOUR),
    ],
)
def test_a_sandbox_is_overdue_past_the_age_of_its_status(
    status: SandboxStatus, limit: float
) -> None:
    assert not is_overdue(candidate(status, limit), AGES)
    assert is_overdue(candidate(status, limit + 1), AGES)
    assert not is_overdue(candidate(status, limit + 1, is_in_use=True), AGES)


@given(st.sampled_from(SandboxStatus), st.floats(0, 1e9), st.booleans())
def test_only_what_runs_or_has_ended_is_ever_overdue(
    status: SandboxStatus, age: float, is_in_use: bool
) -> None:
    if is_overdue(candidate(status, age, is_in_use), AGES):
        assert status in (SandboxStatus.RUNNING, SandboxStatus.STOPPED, SandboxStatus.ERROR)
        assert age > HOUR
        assert not is_in_use


@pytest.mark.anyio
async def test_one_that_cannot_be_removed_keeps_no_other_from_it() -> None:
    from sandpool.errors import DestroyFailed

    removed: list[str] = []

    async def remove(sandbox_id: str) -> None:
        if sandbox_id == "stuck":
            raise DestroyFailed("it does not end")
        removed.append(sandbox_id)

    overdue = [
        Candidate(id=name, status=SandboxStatus.ERROR, age=2 * HOUR) for name in ("stuck", "other")
    ]
    sweeper = Sweeper(lambda: overdue, remove, ages=AGES, interval=300, clock=ManualClock())
    assert await sweeper.sweep() == removed == ["other"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def manager(clock: ManualClock) -> AsyncIterator[LocalSandboxManager]:
    settings = SandboxManagerConfig(cleanup_interval=60)
    async with LocalSandboxManager(
        settings, backends={"native": FakeBackend}, clock=clock
    ) as manager:
        yield manager


@pytest.mark.anyio
async def test_a_forgotten_sandbox_goes_after_two_days(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    forgotten = await manager.create_sandbox(NATIVE, SandboxConfig())
    await clock.advance(48 * HOUR - 120)
    assert await manager.get_sandbox_info(forgotten) is not None
    await clock.advance(240)
    assert await manager.get_sandbox_info(forgotten) is None


@pytest.mark.anyio
async def test_a_stopped_sandbox_goes_after_an_hour(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    stopped = await manager.create_sandbox(NATIVE, SandboxConfig())
    await clock.advance(HOUR)
    await manager.stop_sandbox(stopped)
    await clock.advance(HOUR - 120)
    assert await manager.get_sandbox_info(stopped) is not None
    await clock.advance(240)
    assert await manager.get_sandbox_info(stopped) is None


@pytest.mark.anyio
async def test_both_ages_can_be_set(clock: ManualClock) -> None:
    settings = SandboxManagerConfig(cleanup_interval=1, max_running_age=10, max_stopped_age=5)
    async with LocalSandboxManager(
        settings, backends={"native": FakeBackend}, clock=clock
    ) as manager:
        running = await manager.create_sandbox(NATIVE, SandboxConfig())
        stopped = await manager.create_sandbox(NATIVE, SandboxConfig())
        await manager.stop_sandbox(stopped)
        await clock.advance(7)
        assert [info.id for info in await manager.list_sandboxes()] == [running]
        await clock.advance(5)
        assert await manager.list_sandboxes() == []


@pytest.mark.anyio
async def test_a_member_of_a_pool_that_goes_is_replaced(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await manager.create_pool(PoolSpec(name="one", warm=2, max=4))
    await manager.wait_pool_warm("one")
    first, second = [info.id for info in await manager.list_sandboxes()]
    assert await manager.delete_sandbox(first)
    await clock.advance(1)
    await manager.wait_pool_warm("one")
    left = [info.id for info in await manager.list_sandboxes()]
    assert len(left) == 2
    assert second in left
    assert first not in left


@pytest.mark.anyio
async def test_stopping_twice_at_one_time_is_stopping_once(
    manager: LocalSandboxManager,
) -> None:
    await manager.create_sandbox(NATIVE, SandboxConfig())
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(manager.stop)
    assert await manager.list_sandboxes() == []
