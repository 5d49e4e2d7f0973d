"""A manager's whole life, its faults included, leaves this process and this host as they were."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandpool import (
    LeaseOver,
    LocalSandboxManager,
    PoolSpec,
    SandboxConfig,
    SandboxDied,
    SandboxType,
)
from sandpool.models import Recycle
from tests.leaks import census

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture(autouse=True)
def no_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test a directory for temporary files, and find it empty afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    assert list(tmp_path.iterdir()) == []


def guests() -> list[int]:
    """Return the first process of every sandbox."""
    found: list[int] = []
    for pid in census.descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = status.partition("NSpid:")[2].splitlines()[0].split()
            # Its number here, in its template's namespace, and in its own.
            if len(numbers) == 3 and numbers[-1] == "1":
                found.append(pid)
    return found


def kill_guests() -> int:
    """Kill the first process of every sandbox, as the kernel does for want of memory."""
    count = 0
    for pid in guests():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


async def use_everything(manager: LocalSandboxManager) -> None:
    """Lend, crash, cancel, claim, and leave all of it as it is."""
    await manager.create_pool(PoolSpec(name="one", warm=2, max=6))
    await manager.wait_pool_warm("one")
    async with manager.lease("one") as sandbox:
        await sandbox.files.write("f", b"x" * 1000)
        assert (await sandbox.run_code("print(open('f').read(1))")).stdout == "x\n"
        await sandbox.exec(["sh", "-c", "sleep 1000 & setsid sleep 1000 &"])
    await manager.wait_pool_warm("one")
    async with manager.lease("one") as sandbox:
        assert kill_guests() >= 2
        with pytest.raises(SandboxDied):
            await sandbox.run_code("1")
    await manager.wait_pool_warm("one")
    with anyio.move_on_after(0.05):
        async with manager.lease("one") as sandbox:
            await sandbox.run_code("import time; time.sleep(100)")
    claimed = await manager.claim("one")
    context = await claimed.contexts.open()
    await context.run("x = 1")
    by_id = await manager.create_sandbox(SandboxType.NATIVE, SandboxConfig())
    await manager.stop_sandbox(by_id)


async def live() -> None:
    async with LocalSandboxManager() as manager:
        await use_everything(manager)


async def is_left_after(before: census.Census) -> census.Census:
    gc.collect()
    return await anyio.to_thread.run_sync(census.settle, before)


async def test_a_manager_leaves_nothing_behind() -> None:
    await live()  # once, for what a first use makes for good: threads, a reader of the loop
    gc.collect()
    before = census.take()
    await live()
    assert await is_left_after(before) == before


@pytest.mark.parametrize(
    "steps", [0, 3, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 10, 30, 100))]
)
async def test_a_manager_whose_end_is_cancelled_leaves_nothing_behind(steps: int) -> None:
    await live()
    gc.collect()
    before = census.take()
    manager = LocalSandboxManager()
    await manager.start()
    await use_everything(manager)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.stop)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await manager.stop()
    assert await is_left_after(before) == before


async def test_a_manager_whose_block_is_cancelled_leaves_nothing_behind() -> None:
    await live()
    gc.collect()
    before = census.take()
    with anyio.move_on_after(0.1):
        async with LocalSandboxManager() as manager:
            await use_everything(manager)
            await anyio.sleep_forever()
    assert await is_left_after(before) == before


async def test_a_deleted_pool_leaves_nothing_behind() -> None:
    async with LocalSandboxManager() as manager:
        await use_and_delete(manager)  # what it leaves is the template, for the next pool
        await template_alone(manager)
        gc.collect()
        before = census.take()
        for _ in range(3):
            await use_and_delete(manager)
        assert await is_left_after(before) == before
        assert await manager.list_sandboxes() == []


async def use_and_delete(manager: LocalSandboxManager) -> None:
    """Delete a pool while sandboxes of it are warm, lent and claimed."""
    await manager.create_pool(PoolSpec(name="one", warm=2, max=6))
    await manager.wait_pool_warm("one")
    await manager.claim("one")
    async with manager.lease("one") as sandbox:
        await sandbox.exec(["sh", "-c", "sleep 1000 & setsid sleep 1000 &"])
        await manager.delete_pool("one", force=True)
        with pytest.raises(LeaseOver):
            await sandbox.run_code("1")


async def template_alone(manager: LocalSandboxManager) -> None:
    """Wait until nothing is left below this process but what makes sandboxes."""
    assert await manager.list_sandboxes() == []
    with anyio.fail_after(60):
        while guests():
            await anyio.to_thread.run_sync(census.until, lambda: not guests(), 1)


@pytest.mark.parametrize(
    "recycle",
    [
        "fresh",
        pytest.param("reset", marks=pytest.mark.slow),
        pytest.param("reuse", marks=pytest.mark.slow),
    ],
)
async def test_twenty_leases_use_up_nothing(recycle: Recycle) -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="one", warm=2, max=4, recycle=recycle))
        await manager.wait_pool_warm("one")
        await lend(manager)
        before = await settled_counts()
        for _ in range(20):
            await lend(manager)
        # Less is possible: of an earlier sandbox something may have been closing just then.
        await settled_counts(
            lambda after: all(now <= then for now, then in zip(after, before, strict=True))
        )


async def lend(manager: LocalSandboxManager) -> None:
    """Use one sandbox and its files, processes and interpreters, and wait for the next."""
    async with manager.lease("one") as sandbox:
        assert (await sandbox.run_code("print(1)")).ok
        await sandbox.files.write("f", b"x")
        context = await sandbox.contexts.open()
        await context.run("x = 1")
        async with await sandbox.start_process(["cat"]) as process:
            await process.send(b"x")
            await process.send_eof()
            await process.wait()
        await context.aclose()
    await manager.wait_pool_warm("one")


Counts = tuple[int, int, int, int]
"""Processes, descriptors, mounts and control groups."""


async def settled_counts(is_right: Callable[[Counts], bool] = lambda _: True) -> Counts:
    """Wait until only the two warm sandboxes are left, each with its spare, and count.

    Fails unless the numbers become right within half a minute.
    """
    seen: list[Counts] = []

    def is_settled() -> bool:
        counts = census_of_two()
        seen[:] = [counts] if counts is not None else []
        return any(map(is_right, seen))

    assert await anyio.to_thread.run_sync(census.until, is_settled, 30), f"left at {seen}"
    return seen[0]


def census_of_two() -> Counts | None:
    found, alive = census.take(), guests()
    spares = [pid for guest in alive for pid in census.descendants(guest)]
    if len(alive) != 2 or len(spares) != 2:
        return None
    if not found.descendants.issuperset((*alive, *spares)):
        return None  # a spare was forked while we counted
    return len(found.descendants), found.descriptors, len(found.mounts), len(found.cgroups)
