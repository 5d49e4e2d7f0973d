"""A manager's whole life, its faults included, leaves this process and this host as they were."""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxConfig, SandboxDied, SandboxType
from tests.leaks import census

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


def kill_guests() -> int:
    """Kill the first process of every sandbox, as the kernel does for want of memory."""
    count = 0
    for pid in census.descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = status.partition("NSpid:")[2].splitlines()[0].split()
            # Its number here, in its template's namespace, and in its own.
            if len(numbers) == 3 and numbers[-1] == "1":
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


async def test_a_manager_whose_end_is_cancelled_leaves_nothing_behind() -> None:
    await live()
    gc.collect()
    before = census.take()
    manager = LocalSandboxManager()
    await manager.start()
    await use_everything(manager)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await manager.stop()
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


async def test_leases_use_up_no_descriptors() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="one", warm=2, max=4))
        await manager.wait_pool_warm("one")
        before = census.take()
        for _ in range(10):
            async with manager.lease("one") as sandbox:
                assert (await sandbox.run_code("print(1)")).ok
        await manager.wait_pool_warm("one")
        await anyio.to_thread.run_sync(
            census.until, lambda: len(os.listdir("/proc/self/fd")) <= before.descriptors, 5
        )
        after = census.take()
    assert after.descriptors <= before.descriptors
    assert after.mounts == before.mounts
