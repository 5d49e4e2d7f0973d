"""B12: a steady load for as long as is asked, and what drifts in the meantime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import anyio

from sandpool.bench import arrivals, pools, procfs, quantiles
from sandpool.bench.open_loop import Course, drive
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale

_RATE = 50.0
_STOCK = 16
_LOOKS = 12
"""How often everything is looked at; the drift is from the first third to the last."""


async def measure(scale: Scale) -> Findings:
    """Serve at a steady rate and look at everything again and again."""
    latencies: list[tuple[float, float]] = []
    courses: list[Course] = []
    looks: dict[str, list[float]] = {name: [] for name in _WHAT}
    async with pools.warm_pool(warm=_STOCK) as manager:
        zero = time.perf_counter()

        async def call(intended: float) -> None:
            stages = await pools.run_once(manager, intended=intended)
            latencies.append((stages.intended - zero, stages.first_byte - stages.intended))

        async def look() -> None:
            for number in range(_LOOKS):
                until = zero + scale.soak * (number + 0.5) / _LOOKS
                await anyio.sleep(max(0.0, until - time.perf_counter()))
                for name, (measured, _) in _WHAT.items():
                    looks[name].append(measured())

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            courses.append(await drive(arrivals.poisson(_RATE, scale.soak, scale.seed), call))
        info = await manager.get_pool(pools.POOL)
    figures = [
        figure
        for name, (_, unit) in _WHAT.items()
        for figure in _drift(name, looks[name], unit, len(looks[name]))
    ]
    figures += _drift("first output, p99", _tails(latencies, scale.soak), "ms", len(latencies))
    lost = info.create_failures + sum(each.lost for each in courses)
    figures.append(
        Figure(name="calls and creations that failed", value=lost, unit="", n=info.created)
    )
    note = (
        f"{_RATE:g} calls a second for {scale.soak / 60:g} min. Slabs and groups are those of the "
        "whole host."
    )
    return Findings(figures=tuple(figures), notes=(note,))


def _own_memory() -> float:
    return procfs.resident_mib(os.getpid())


_WHAT: Mapping[str, tuple[Callable[[], float], str]] = MappingProxyType(
    {
        "memory of this process": (_own_memory, "MiB"),
        "slabs of the kernel": (procfs.slab_mib, "MiB"),
        "dying control groups": (procfs.dying_cgroups, ""),
    }
)
"""What is looked at, and its unit."""


def _tails(latencies: Sequence[tuple[float, float]], seconds: float) -> list[float]:
    """Return the p99 of each twelfth of the time, in milliseconds."""
    parts: list[list[float]] = [[] for _ in range(_LOOKS)]
    for at, took in latencies:
        parts[min(_LOOKS - 1, int(at / seconds * _LOOKS))].append(took)
    return [1e3 * quantiles.quantile(part, 0.99) for part in parts if part]


def _drift(name: str, looks: Sequence[float], unit: str, n: int) -> list[Figure]:
    """Return the medians of the first and of the last third, and what lies between."""
    third = max(1, len(looks) // 3)
    first, last = quantiles.median(looks[:third]), quantiles.median(looks[-third:])
    return [
        Figure(name=f"{name}, at first", value=first, unit=unit, n=n),
        Figure(name=f"{name}, at last", value=last, unit=unit, n=n),
        Figure(name=f"{name}, drift", value=last - first, unit=unit, n=n),
    ]
