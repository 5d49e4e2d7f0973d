"""The queue: order, offers that are refused, and cancellations that land late."""

from __future__ import annotations

import anyio
import pytest

from sandpool.pool.waiters import Waiter, Waiters

pytestmark = pytest.mark.anyio


async def wait(waiters: Waiters[int], got: list[tuple[str, int]], name: str) -> None:
    waiter: Waiter[int] = Waiter(0.0, None, waiters.place())
    waiters.add(waiter)
    got.append((name, await waiters.take(waiter)))


async def test_the_first_to_come_is_the_first_to_be_served() -> None:
    waiters: Waiters[int] = Waiters(lambda item: None)
    got: list[tuple[str, int]] = []
    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(wait, waiters, got, name)
            await anyio.wait_all_tasks_blocked()
        for number in range(3):
            waiters.offer(number)
    assert got == [("a", 0), ("b", 1), ("c", 2)]


async def test_a_caller_that_queues_again_keeps_its_place() -> None:
    waiters: Waiters[int] = Waiters(lambda item: None)
    early, late = waiters.place(), waiters.place()
    waiters.add(Waiter(0.0, None, late))
    waiters.add(Waiter(0.0, None, early))
    assert waiters.first.place == early


async def test_an_offer_to_a_cancelled_caller_comes_back() -> None:
    returned: list[int] = []
    waiters: Waiters[int] = Waiters(returned.append)
    got: list[tuple[str, int]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(wait, waiters, got, "a")
        await anyio.wait_all_tasks_blocked()
        # Both before the task runs again: it is being cancelled when the offer chooses it.
        group.cancel_scope.cancel()
        waiters.offer(7)
    assert (got, returned, len(waiters)) == ([], [7], 0)


async def test_a_cancelled_caller_leaves_the_queue() -> None:
    waiters: Waiters[int] = Waiters(lambda item: None)
    async with anyio.create_task_group() as group:
        group.start_soon(wait, waiters, [], "a")
        await anyio.wait_all_tasks_blocked()
        assert len(waiters) == 1
        group.cancel_scope.cancel()
    assert len(waiters) == 0


async def test_everybody_can_be_sent_away() -> None:
    waiters: Waiters[int] = Waiters(lambda item: None)
    failed: list[str] = []

    async def wait_in_vain() -> None:
        with pytest.raises(ValueError, match="no more"):
            await wait(waiters, [], "a")
        failed.append("a")

    async with anyio.create_task_group() as group:
        group.start_soon(wait_in_vain)
        group.start_soon(wait_in_vain)
        await anyio.wait_all_tasks_blocked()
        waiters.fail_all(lambda: ValueError("no more"))
    assert failed == ["a", "a"]
