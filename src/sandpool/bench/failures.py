"""B10: what good tenants pay for bad ones, and how long it takes after a template was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import anyio

from sandpool.bench import arrivals, pools, procfs, quantiles
from sandpool.bench.open_loop import drive
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.errors import SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec

_RATE = 50.0
_BAD = 10
"""One call in so many is a bad tenant's."""
_STOCK = 16
_PIDS = 32
_MEMORY_MB = 64
_TIMEOUT = 0.2
_RECOVERY = 20.0
_LOOK = 0.002
"""Seconds between two looks at what no event tells."""
_TENANTS = {
    "no bad tenant": "",
    "1 in 10 a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "1 in 10 out of memory": "x = [bytearray(1 << 20) for _ in range(1 << 12)]",
    "1 in 10 that hangs": "import signal, time\n"
    "for number in range(1, 32):\n"
    "    try: signal.signal(number, signal.SIG_IGN)\n"
    "    except OSError: pass\n"
    "while True: pass",
}


async def measure(scale: Scale) -> Findings:
    """Run good tenants beside each kind of bad ones, then kill templates."""
    figures: list[Figure] = []
    left = lost = calls = 0
    for name, code in _TENANTS.items():
        times: list[list[float]] = []
        for repeat in range(scale.repeats):
            starts = arrivals.poisson(_RATE, scale.tax, scale.seed + repeat)
            good, remaining, unserved = await _measure_tax(starts, code)
            times.append(good)
            left += remaining
            lost += unserved
            calls += len(starts)
        figures += quantiles.latencies(f"good tenants' first output, {name}", times)
    recoveries = [await _measure_recovery() for _ in range(scale.repeats)]
    figures += [
        Figure(name="calls that were not served", value=lost, unit="", n=calls),
        Figure(name="processes left behind", value=left, unit="", n=len(_TENANTS) * scale.repeats),
        quantiles.steady(
            "template killed, until a program has run in a new sandbox",
            [1e3 * ran for ran, _ in recoveries],
            "ms",
        ),
        quantiles.steady(
            f"template killed, until {_STOCK} new ones are ready",
            [1e3 * full for _, full in recoveries],
            "ms",
        ),
    ]
    note = (
        f"{_RATE:g} calls a second, in sandboxes of {_MEMORY_MB} MiB and {_PIDS} processes; a bad "
        f"tenant's program is killed after {_TIMEOUT:g} s if nothing else ends it."
    )
    return Findings(figures=tuple(figures), notes=(note,))


def _spec() -> PoolSpec:
    return PoolSpec(name=pools.POOL, warm=_STOCK, max=4 * _STOCK, pids=_PIDS, memory_mb=_MEMORY_MB)


async def _measure_tax(starts: list[float], code: str) -> tuple[list[float], int, int]:
    """Return the latencies of the good, the processes left behind, and the calls not served."""
    times: list[float] = []
    number = 0
    async with pools.managed(_spec()) as manager:

        async def call(intended: float) -> None:
            nonlocal number
            number += 1
            if code and number % _BAD == 0:
                async with manager.lease(pools.POOL) as sandbox:
                    await sandbox.run_code(code, timeout=_TIMEOUT)
                return
            stages = await pools.run_once(manager, intended=intended)
            times.append(stages.first_byte - stages.intended)

        course = await drive(starts, call)
    return times, len(procfs.in_sandboxes()), course.lost


async def _measure_recovery() -> tuple[float, float]:
    """Kill a template; return the seconds until a new sandbox has served, and until all are new."""
    others = _templates()
    async with pools.managed(_spec()) as manager:
        old = set(manager.pool_membership(pools.POOL).ready)
        ours = [pid for pid in _templates() if pid not in others]
        begun = time.perf_counter()
        os.kill(ours[0], signal.SIGKILL)
        with anyio.fail_after(_RECOVERY):
            # Before the death is heard of an old one can still be lent; its tenant's call may fail.
            while not await _ran_in_new(manager, old):  # noqa: ASYNC110 (no event tells)
                await anyio.sleep(_LOOK)
            ran = time.perf_counter() - begun
            while old & set(manager.pool_membership(pools.POOL).ready):  # noqa: ASYNC110 (as above)
                await anyio.sleep(_LOOK)
            await manager.wait_pool_warm(pools.POOL)
        return ran, time.perf_counter() - begun


async def _ran_in_new(manager: LocalSandboxManager, old: set[str]) -> bool:
    try:
        tenancy = await manager.borrow(pools.POOL)
    except SandpoolError:
        return False
    try:
        result = await tenancy.handle.run_code(pools.PROGRAM)
    except SandpoolError:
        return False
    finally:
        tenancy.end()
    return tenancy.id not in old and result.ok


def _templates() -> list[int]:
    """Return the processes that fork this program's sandboxes, each after the one it came from."""
    found: list[int] = []
    for pid in procfs.below(os.getpid()):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"template/boot.py") for word in words):
                found.append(pid)
    return found
