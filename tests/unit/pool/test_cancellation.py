"""Whatever a step is doing when it is cut off, nothing is lost and nothing is left behind.

A matrix: each step of an item's life, going each way, is cut off by each end, after each of the
first turns of the event loop, so that a cancellation lands at every await in between.
"""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from sandpool.errors import AcquireTimeout, PoolClosed
from sandpool.pool import EndReason, Lease, Policy, Pool
from sandpool.pool.backoff import Backoff
from sandpool.testing import FakeFactory, FakeItem
from sandpool.testing.fake_factory import Way

pytestmark = pytest.mark.anyio

Step = Literal["wait", "create", "reset", "check", "destroy"]
End = Literal["caller cancelled", "caller out of time", "run cancelled", "closed"]

TURNS = range(12)
"""Turns of the loop between the beginning of a step and its end; every step is blocked by then."""
PATIENCE = 0.25
"""Seconds that a caller waits: less than a slow step takes, and than a pool takes to degrade."""
LONG = 300.0
"""Seconds after which every bound of the policy has been reached, and every back-off is over."""

SETTLED = 40
"""Turns of the loop after which nothing goes on here by itself any more."""


async def settle() -> None:
    """Let everything go on that can.

    `anyio.wait_all_tasks_blocked` looks every tenth of a second only, and this module waits
    thousands of times.
    """
    for _ in range(SETTLED):
        await anyio.lowlevel.checkpoint()


class TurningClock:
    """Like `ManualClock`, but it settles by turns of the loop."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[tuple[float, int, anyio.Event]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._now)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        self._count += 1
        alarm = anyio.Event()
        # One whose sleeper has been cancelled rings for nobody.
        heapq.heappush(self._alarms, (self._now + seconds, self._count, alarm))
        await alarm.wait()

    async def advance(self, seconds: float) -> None:
        end = self._now + seconds
        await settle()
        while self._alarms and self._alarms[0][0] <= end:
            self._now, _, alarm = heapq.heappop(self._alarms)
            if alarm.statistics().tasks_waiting:
                alarm.set()
                await settle()
        self._now = end


class Scene:
    """One pool with one caller, brought to where a step goes in a way of its own."""

    def __init__(self, step: Step, way: Way, end: End) -> None:
        self.step: Step = step
        self.way: Way = way
        self.clock = TurningClock()
        self.factory = FakeFactory(self.clock)
        self.pool: Pool[FakeItem] = Pool(
            self.factory,
            # One place: whoever waits, waits for exactly the step that is cut off.
            Policy(
                warm=0,
                max=1,
                recycle="reset" if step == "reset" else "fresh",
                maintain_every=2 * LONG,
            ),
            clock=self.clock,
            backoff=Backoff(lambda: 1.0),
        )
        self.timeout = PATIENCE if end == "caller out of time" else None
        self.told: list[type[Exception] | EndReason] = []
        """How the caller's attempt ended, if not by its own cancellation."""
        self.leases: list[Lease[FakeItem]] = []

    async def call(self) -> None:
        """Acquire, and hold what was acquired until cancelled or the lease ends."""
        try:
            lease = await self.pool.acquire(timeout=self.timeout, check=self.step == "check")
        except (AcquireTimeout, PoolClosed) as error:
            self.told.append(type(error))
            return
        self.leases.append(lease)
        lease.on_end(self.told.append)
        async with lease:
            await anyio.sleep_forever()

    async def begin(self, callers: TaskGroup) -> None:
        """Bring the pool to the beginning of the step, with the caller waiting for its outcome."""
        if self.step == "create":
            self.factory.ways["create"] = self.way
            callers.start_soon(self.call)
            return
        if self.step == "check":
            self.pool.resize(warm=1)
            await self.pool.wait_warm()
            self.factory.ways["check"] = self.way
            callers.start_soon(self.call)
            return
        holder = await self.pool.acquire()
        # What a caller waits for is a creation in the one place, once it is free.
        self.factory.ways["create" if self.step == "wait" else self.step] = self.way
        callers.start_soon(self.call)
        await settle()
        holder.release_nowait()

    async def turn(self, turns: int) -> None:
        """Let the loop turn; the counts add up at each turn."""
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
            self.check_counts()

    def check_counts(self) -> None:
        """Nothing is lost and nothing is counted twice, at this very instant."""
        stats = self.pool.stats()
        assert stats.created == stats.destroyed + stats.alive
        assert stats.ready + stats.creating + stats.leased + stats.resetting <= stats.max
        assert stats.leased == len(self.pool.leases())

    def check_nothing_is_left(self) -> None:
        """Every item that was made is gone, and was destroyed once."""
        stats = self.pool.stats()
        assert self.factory.alive == []
        assert stats.created == stats.destroyed == len(self.factory.items)
        assert self.factory.calls["destroy"] == len(self.factory.items)
        assert (stats.creating, stats.waiting, self.pool.leases()) == (0, 0, [])

    async def check_it_serves(self) -> None:
        """Another caller gets an item, once the factory works again."""
        self.factory.ways.clear()
        # Whatever never ends is given up at its bound, and failures are forgiven.
        await self.clock.advance(LONG)
        self.check_counts()
        lease = await self.pool.acquire()
        assert lease.item in self.factory.alive
        assert self.pool.leases() == [lease]
        await lease.discard()

    async def end_while_time_passes(self, group: TaskGroup) -> None:
        """Close the pool; the clock goes on, so that what never ends is given up."""
        group.start_soon(self.clock.advance, LONG)
        await self.pool.aclose()


STEPS = get_args(Step)
WAYS = get_args(Way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_cancelled_caller_loses_nothing(step: Step, way: Way) -> None:
    for turns in TURNS:
        scene = Scene(step, way, "caller cancelled")
        async with anyio.create_task_group() as group:
            await group.start(scene.pool.run)
            async with anyio.create_task_group() as callers:
                await scene.begin(callers)
                await scene.turn(turns)
                callers.cancel_scope.cancel()
            scene.check_counts()
            assert scene.pool.stats().waiting == 0
            await scene.check_it_serves()
            await scene.end_while_time_passes(group)
        scene.check_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_caller_that_runs_out_of_time_loses_nothing(step: Step, way: Way) -> None:
    scene = Scene(step, way, "caller out of time")
    async with anyio.create_task_group() as group:
        await group.start(scene.pool.run)
        async with anyio.create_task_group() as callers:
            await scene.begin(callers)
            await scene.clock.advance(PATIENCE)
            scene.check_counts()
            assert scene.told == ([] if scene.leases else [AcquireTimeout])
            assert scene.pool.stats().waiting == 0
            callers.cancel_scope.cancel()
        await scene.check_it_serves()
        await scene.end_while_time_passes(group)
    scene.check_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_cancelled_pool_leaves_nothing_and_can_run_again(step: Step, way: Way) -> None:
    for turns in TURNS:
        scene = Scene(step, way, "run cancelled")
        async with anyio.create_task_group() as callers:
            async with anyio.create_task_group() as group:
                await group.start(scene.pool.run)
                await scene.begin(callers)
                await scene.turn(turns)
                callers.start_soon(scene.clock.advance, LONG)
                group.cancel_scope.cancel()
            scene.check_nothing_is_left()
            await settle()
            assert scene.told == (["closed"] if scene.leases else [PoolClosed])
            callers.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            await group.start(scene.pool.run)
            await scene.check_it_serves()
            await scene.pool.aclose()
        scene.check_nothing_is_left()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_closed_pool_leaves_nothing_and_tells_its_caller(step: Step, way: Way) -> None:
    for turns in TURNS:
        scene = Scene(step, way, "closed")
        async with anyio.create_task_group() as group:
            await group.start(scene.pool.run)
            await scene.begin(group)
            await scene.turn(turns)
            await scene.end_while_time_passes(group)
            scene.check_nothing_is_left()
            await settle()
            assert scene.told == (["closed"] if scene.leases else [PoolClosed])
            group.cancel_scope.cancel()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_cancelled_close_leaves_nothing_in_the_end(step: Step, way: Way) -> None:
    for turns in TURNS:
        scene = Scene(step, way, "closed")
        async with anyio.create_task_group() as group:
            await group.start(scene.pool.run)
            await scene.begin(group)
            async with anyio.create_task_group() as closers:
                closers.start_soon(scene.pool.aclose)
                await scene.turn(turns)
                closers.cancel_scope.cancel()
            scene.check_counts()
            # The end goes on by itself; only the wait for it was given up.
            await scene.clock.advance(LONG)
            scene.check_nothing_is_left()
            group.cancel_scope.cancel()


async def test_closing_twice_at_the_same_time_destroys_once() -> None:
    scene = Scene("destroy", "slow", "closed")
    async with anyio.create_task_group() as group:
        await group.start(scene.pool.run)
        scene.pool.resize(warm=1)
        await scene.pool.wait_warm()
        scene.factory.ways["destroy"] = "slow"
        group.start_soon(scene.pool.aclose)
        await settle()
        await scene.end_while_time_passes(group)
    scene.check_counts()
    scene.check_nothing_is_left()
