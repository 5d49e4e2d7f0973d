"""Control groups of a real kernel: attached in batches, at refill, and used again once empty."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.backends.base import Limits
from sandpool.backends.native import cgroups
from sandpool.backends.native.cgroups import Cgroups, Slot

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.namespaces,
    pytest.mark.skipif(
        "memory" not in cgroups.find().controllers, reason="no cgroup here holds memory"
    ),
]

MIB = 1024 * 1024


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    groups = Cgroups(cgroups.find())
    groups.open()
    yield groups
    groups.close()


async def run_in(groups: Cgroups, slot: Slot, code: str) -> None:
    """Run a program in a slot's groups, from its start to its end."""
    with subprocess.Popen(  # noqa: ASYNC220 (the test waits for it anyway)
        [sys.executable, "-c", "input()\n" + code], stdin=subprocess.PIPE, text=True
    ) as program:
        await groups.attach(slot, program.pid)
        program.communicate("\n")
    assert program.returncode == 0


async def test_a_group_is_not_used_again_while_memory_is_charged_to_it(groups: Cgroups) -> None:
    left = Path("/dev/shm", f"sandpool-test-{secrets.token_hex(8)}")
    slot = groups.take(Limits())
    try:
        await run_in(groups, slot, f"open({str(left)!r}, 'wb').write(bytes({40 * MIB}))")
        groups.give_back(slot)
        assert groups.take(Limits()) is not slot
    finally:
        left.unlink(missing_ok=True)
    assert groups.take(Limits()) is slot


async def test_what_is_only_cached_of_files_does_not_keep_a_group_from_use(
    groups: Cgroups, tmp_path: Path
) -> None:
    cached = tmp_path / "cached"
    slot = groups.take(Limits())
    code = (
        f"file = open({str(cached)!r}, 'wb'); file.write(bytes({40 * MIB})); "
        "file.flush(); __import__('os').fsync(file.fileno())"
    )
    await run_in(groups, slot, code)
    groups.give_back(slot)
    assert groups.take(Limits()) is slot
    await groups.change(slot, Limits(memory_mb=16))


async def test_groups_that_never_empty_are_few(groups: Cgroups) -> None:
    kept: list[Path] = []
    try:
        seen: set[int] = set()
        for number in range(cgroups._MOST_SETTLING + 4):
            slot = groups.take(Limits())
            seen.add(slot.number)
            left = Path("/dev/shm", f"sandpool-test-{secrets.token_hex(8)}")
            kept.append(left)
            await run_in(groups, slot, f"open({str(left)!r}, 'wb').write(bytes({17 * MIB}))")
            groups.give_back(slot)
            assert len(seen) <= cgroups._MOST_SETTLING + 1, number
    finally:
        for left in kept:
            left.unlink(missing_ok=True)


async def test_processes_that_wait_are_attached_in_one_batch(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    attach: Any = groups._attach

    def count(batch: list[tuple[Slot, int]]) -> None:
        batches.append(len(batch))
        attach(batch)

    monkeypatch.setattr(groups, "_attach", count)
    slots = [groups.take(Limits()) for _ in range(6)]
    programs = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
        for _ in slots
    ]
    try:
        async with anyio.create_task_group() as group:
            for slot, program in zip(slots, programs, strict=True):
                group.start_soon(groups.attach, slot, program.pid)
        assert batches == [6]
        for slot, program in zip(slots, programs, strict=True):
            table = Path(f"/proc/{program.pid}/cgroup").read_text()
            assert f"/{groups.name}/{slot.number}\n" in table
    finally:
        for program in programs:
            program.communicate(b"\n")
    for slot in slots:
        groups.give_back(slot)


async def test_a_claim_attaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attached: list[int] = []
    attach = Cgroups.attach

    async def note(self: Cgroups, slot: Slot, pid: int) -> None:
        attached.append(pid)
        await attach(self, slot, pid)

    monkeypatch.setattr(Cgroups, "attach", note)
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="p", warm=2, max=2))
        await manager.wait_pool_warm("p")
        before = len(attached)
        assert before == 2
        async with manager.lease("p") as one, manager.lease("p") as other:
            # `max` keeps the pool from making others meanwhile.
            assert (await one.run_code("print(1)")).stdout == "1\n"
            assert (await other.run_code("print(1)")).stdout == "1\n"
            assert len(attached) == before
    assert os.getpid() not in attached
