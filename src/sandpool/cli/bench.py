"""`sandpool bench`: what a pool costs, as ratios to baselines that are measured in the same run.

Machines differ and are shared, so no figure means much alone.  Samples of a thing and of its
baseline are taken in turns, so that both see the same machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from rich.console import Console

from sandpool.backends.native import doctor
from sandpool.cli.report import Result, compare, ms, percentile, table
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec

_COLD = (sys.executable, "-I", "-S", "-c", "print(1)")
_HEAVY = ("numpy", "pandas")
_SERVER_NEEDS = ("fastapi", "uvicorn")
_WAITING = 8
"""Sandboxes that wait while their memory is measured."""

_FORKER = textwrap.dedent(
    """
    import gc, os, sys, time
    import base64, ctypes, heapq, importlib.util, json, marshal, select, signal, socket, struct
    gc.freeze()
    for _ in sys.stdin:
        read, write = os.pipe()
        begun = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os.dup2(write, 1)
            print(1, flush=True)
            os._exit(0)
        os.close(write)
        os.read(read, 1)
        print(time.perf_counter() - begun, flush=True)
        os.close(read)
        os.waitpid(pid, 0)
    """
)
"""Forks an interpreter of about a guest's size for every line of its input, and says how long the
first output took."""


Suite = Literal["pool", "server", "docker", "all"]
"""What is measured: pools in this process, a server, both of these; or containers."""


async def show(*, suite: Suite, samples: int, cycles: int, callers: int, as_json: bool) -> None:
    """Measure and print; raises what a host that cannot run it makes the backend raise."""
    console = Console(stderr=as_json)
    results: list[Result] = []
    if suite in ("pool", "all"):
        results += await _measure_pools(console, samples, cycles, callers)
    if suite in ("server", "all"):
        results += await _measure_server(console, samples, cycles)
    if suite == "docker":
        results += await anyio.to_thread.run_sync(lambda: _measure_containers(console, samples))
    report = {
        "host": _describe_host(),
        "results": [asdict(result) for result in results],
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        console.print(table(results))
        for name, fact in _describe_host().items():
            console.print(f"  {name}: {fact}")


def _measure_containers(console: Console, samples: int) -> list[Result]:
    from sandpool.cli.bench_docker import measure

    return measure(console, samples=samples)


async def _measure_server(console: Console, samples: int, cycles: int) -> list[Result]:
    missing = [name for name in _SERVER_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        console.print(f"left out: a server, which needs {' and '.join(missing)}")
        return []
    from sandpool.cli.bench_server import measure

    console.print("a server of its own: claims, runs, borrows, addresses, and idle")
    return await anyio.to_thread.run_sync(lambda: measure(samples=samples, cycles=cycles))


async def _measure_pools(console: Console, samples: int, cycles: int, callers: int) -> list[Result]:
    console.print("first output: a warm sandbox, a cold interpreter, a bare fork, in turns")
    results = await _measure_first_output(samples)
    console.print(f"fresh cycles: {callers} callers, {cycles} leases")
    results += await _measure_cycles(callers, cycles)
    console.print("memory of sandboxes that wait")
    results += await _measure_memory()
    if all(importlib.util.find_spec(name) for name in _HEAVY):
        console.print(f"first output with {', '.join(_HEAVY)} preloaded")
        results += await _measure_preload(max(10, samples // 5))
    else:
        console.print(f"left out: {' and '.join(_HEAVY)} are not installed, so nothing to preload")
    return results


def _describe_host() -> dict[str, str]:
    facts = doctor.examine().facts
    kept: dict[str, str] = {
        name: facts[name] for name in ("kernel", "python", "cgroup attach") if name in facts
    }
    return {**kept, "machine": platform.machine(), "processors": str(os.cpu_count())}


async def _measure_first_output(samples: int) -> list[Result]:
    warm: list[float] = []
    cold: list[float] = []
    bare: list[float] = []
    forker = subprocess.Popen(  # noqa: ASYNC220 (before anything is measured)
        [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert forker.stdin is not None
    assert forker.stdout is not None
    try:
        async with LocalSandboxManager() as manager:
            await manager.create_pool(PoolSpec(name="bench", warm=2, max=4))
            for _ in range(samples):
                await manager.wait_pool_warm("bench")
                warm.append(await first_output(manager, "bench", "print(1)"))
                cold.append(_until_output(_COLD))
                forker.stdin.write("\n")
                forker.stdin.flush()
                bare.append(float(forker.stdout.readline()))
    finally:
        forker.kill()
        forker.communicate()
    one, two, three = (statistics.median(times) for times in (warm, cold, bare))
    return [
        Result("lease and first output of print(1), p50", ms(one), "ms"),
        Result("the same, p99", ms(percentile(warm, 0.99)), "ms"),
        Result("cold `python3 -I -S`, first output, p50", ms(two), "ms"),
        Result("bare fork of such an interpreter, first output, p50", ms(three), "ms"),
        compare("cold start ÷ lease", two / one, "≥ 6", lambda ratio: ratio >= 6),
        compare("lease ÷ bare fork", one / three, "≤ 2.5", lambda ratio: ratio <= 2.5),
    ]


async def _measure_cycles(callers: int, cycles: int) -> list[Result]:
    numbers = iter(range(cycles))
    times: list[float] = []
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="bench", warm=callers, max=4 * callers, builders=callers)
        await manager.create_pool(spec)
        await manager.wait_pool_warm("bench")

        async def call() -> None:
            for number in numbers:
                begun = time.perf_counter()
                async with manager.lease("bench") as sandbox:
                    result = await sandbox.run_code(f"print({number})")
                if result.stdout != f"{number}\n":
                    raise RuntimeError(f"a sandbox answered {result.stdout!r}: {result.stderr}")
                times.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(call)
        seconds = time.perf_counter() - begun
    rate = cycles / seconds
    return [
        compare(f"fresh cycles, {callers} callers", rate, "≥ 200 /s", lambda r: r >= 200, "/s"),
        Result("one cycle, p50", ms(statistics.median(times)), "ms"),
        Result("one cycle, p99", ms(percentile(times, 0.99)), "ms"),
    ]


async def _measure_memory() -> list[Result]:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="bench", warm=_WAITING, max=_WAITING))
        await manager.wait_pool_warm("bench")
        sizes = [_private_kib(pid) for pid in _in_sandboxes()]
    if not sizes or None in sizes:
        return []  # only root may look at what its sandboxes hold
    total = sum(size for size in sizes if size is not None)
    return [Result("memory of a warm sandbox", round(total / _WAITING / 1024, 1), "MiB")]


def _in_sandboxes() -> list[int]:
    """Return the processes below us that are in a sandbox: two pid namespaces down from ours."""
    parents: dict[int, int] = {}
    depths: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = dict(
                    line.split(":", 1) for line in (entry / "status").read_text().splitlines()
                )
                parents[int(entry.name)] = int(fields["PPid"])
                depths[int(entry.name)] = len(fields["NSpid"].split())
    ours = os.getpid()

    def is_below(pid: int) -> bool:
        return pid in parents and (parents[pid] == ours or is_below(parents[pid]))

    return [pid for pid in parents if depths[pid] == depths[ours] + 2 and is_below(pid)]


def _private_kib(pid: int) -> int | None:
    """Return what a process has in memory that it shares with no other; None if we may not know."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return int(text.partition("Private_Dirty:")[2].split()[0])


async def _measure_preload(samples: int) -> list[Result]:
    code = "import numpy, pandas; print(1)"
    warm: list[float] = []
    cold: list[float] = []
    async with LocalSandboxManager() as manager:
        await manager.create_pool(
            PoolSpec(name="heavy", preload=_HEAVY, warm=2, max=4, memory_mb=1024)
        )
        for _ in range(samples):
            await manager.wait_pool_warm("heavy")
            warm.append(await first_output(manager, "heavy", code))
            cold.append(_until_output((sys.executable, "-c", code)))
    one, two = statistics.median(warm), statistics.median(cold)
    return [
        Result("preloaded numpy and pandas, first output, p50", ms(one), "ms"),
        Result("importing them in a new interpreter, p50", ms(two), "ms"),
        compare("importing ÷ preloaded", two / one, "≥ 40", lambda ratio: ratio >= 40),
    ]


async def first_output(manager: LocalSandboxManager, pool: str, code: str) -> float:
    """Return the seconds from asking for a lease to the first output of `code` in it."""
    seen: list[float] = []
    begun = time.perf_counter()
    async with manager.lease(pool) as sandbox:
        await sandbox.run_code(
            code, on_output=lambda stream, data: seen.append(time.perf_counter())
        )
    return seen[0] - begun


def _until_output(command: tuple[str, ...]) -> float:
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - begun
