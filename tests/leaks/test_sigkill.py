"""A program that uses sandboxes is killed with SIGKILL, at any instant: nothing is left of it."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import census

pytestmark = pytest.mark.namespaces

BACKEND = textwrap.dedent(
    """
    import asyncio, sys
    from sandpool.backends.base import BoxSpec, RunOptions
    from sandpool.backends.native import NativeBackend

    async def churn(backend, name):
        number = 0
        while True:
            number += 1
            box = await backend.create(BoxSpec(), box_id=f"{name}{number}")
            code = "import subprocess; subprocess.Popen(['sleep', '1000'])"
            await box.run_code(code, RunOptions())
            if number % 2:
                await box.destroy()
            if number == 3:
                print("churning", flush=True)

    async def main():
        backend = NativeBackend()
        print("starting", flush=True)
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(churn(backend, name))

    asyncio.run(main())
    """
)
MANAGER = textwrap.dedent(
    """
    import asyncio
    from sandpool import LocalSandboxManager, PoolSpec

    async def call(manager, number):
        while True:
            async with manager.lease("one") as sandbox:
                await sandbox.exec(["sh", "-c", "sleep 1000 &"])
                await sandbox.run_code("print(1)")
            if number == 0:
                print("churning", flush=True)

    async def main():
        print("starting", flush=True)
        async with LocalSandboxManager() as manager, asyncio.TaskGroup() as group:
            await manager.create_pool(PoolSpec(name="one", warm=2, max=6))
            for number in range(3):
                group.create_task(call(manager, number))

    asyncio.run(main())
    """
)
PROGRAMS = {"backend": BACKEND, "manager": MANAGER}


@pytest.fixture
def adopted_orphans() -> Iterator[None]:
    """Make orphans of our children our own, so that the census finds them wherever they went."""
    libc = ctypes.CDLL(None)
    set_child_subreaper = 36
    libc.prctl(set_child_subreaper, 1, 0, 0, 0)
    yield
    libc.prctl(set_child_subreaper, 0, 0, 0, 0)


def reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


@pytest.mark.parametrize(
    "attempt", [0, 1, *(pytest.param(number, marks=pytest.mark.slow) for number in range(2, 6))]
)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_nothing_outlives_a_killed_program(
    adopted_orphans: None, kind: str, attempt: int, tmp_path: Path
) -> None:
    before = census.take()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAMS[kind]],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "starting\n"
    if attempt:
        assert program.stdout.readline() == "churning\n"
    census.until(lambda: False, random.Random(attempt).uniform(0, 0.3))
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()

    def is_clean() -> bool:
        reap()
        return census.take(program.pid) == before

    census.until(is_clean, 30)
    reap()
    assert census.take(program.pid) == before
    assert not list(tmp_path.iterdir())


def test_nothing_outlives_a_program_killed_with_all_its_processes(adopted_orphans: None) -> None:
    before = census.take()
    program = subprocess.Popen([sys.executable, "-c", BACKEND], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "starting\n"
    assert program.stdout.readline() == "churning\n"
    for pid in census.descendants(program.pid) | {program.pid}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    program.wait()
    program.stdout.close()

    def is_clean() -> bool:
        reap()
        return census.take().descendants == before.descendants

    assert census.until(is_clean, 30)
    # Whoever comes next removes the control groups that nobody was left to remove.
    sweeper = (
        "from sandpool.backends.native import cgroups\n"
        "groups = cgroups.Cgroups(cgroups.find()); groups.open(); groups.close()"
    )
    subprocess.run([sys.executable, "-c", sweeper], check=True)
    assert census.take(program.pid).cgroups == before.cgroups
