"""B9: one tenant floods a pool while another asks once a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio

from sandpool.bench import arrivals, pools, quantiles
from sandpool.bench.open_loop import drive
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.models import PoolSpec

_RATE = 1.0
_STOCK = 8
_FLOODERS = 4
"""Tenants that flood, for how evenly they are served among themselves."""
_CALLERS = 8
"""Callers of each."""
_OWN = "own"
"""The pool that the modest tenant has to itself."""


@dataclass
class _Found:
    alone: list[list[float]] = field(default_factory=list[list[float]])
    flooded: list[list[float]] = field(default_factory=list[list[float]])
    apart: list[list[float]] = field(default_factory=list[list[float]])
    lost: int = 0
    shares: list[float] = field(default_factory=list[float])
    served: list[float] = field(default_factory=list[float])


async def measure(scale: Scale) -> Findings:
    """Measure B alone, in A's pool under A's flood, and in a pool of its own under it."""
    found = _Found()
    for repeat in range(scale.repeats):
        starts = arrivals.poisson(_RATE, scale.fair, scale.seed + repeat)
        found.alone.append(await _measure(starts, pools.POOL, found, is_flooded=False))
        found.flooded.append(await _measure(starts, pools.POOL, found, is_flooded=True))
        found.apart.append(await _measure(starts, _OWN, found, is_flooded=True))
    name = f"B at {_RATE:g}/s, first output"
    count = len(found.shares)
    figures: list[Figure] = [
        *quantiles.latencies(f"{name}, alone", found.alone),
        *quantiles.latencies(f"{name}, A floods the same pool", found.flooded),
        *quantiles.latencies(f"{name}, A floods another pool", found.apart),
        Figure(name="calls of B that were not served", value=found.lost, unit="", n=_count(found)),
        quantiles.steady(f"A, {_FLOODERS * _CALLERS} callers", found.served, "/s", n=count),
        quantiles.steady(f"Jain's index of {_FLOODERS} that flood", found.shares, "", n=count),
    ]
    note = (
        "A pool serves who waits in the order in which they came and knows no tenants: what B "
        "waits for in a flood is the queue before it. A server has a limit of rate for each key."
    )
    return Findings(figures=tuple(figures), notes=(note,))


def _count(found: _Found) -> int:
    return found.lost + sum(map(len, (*found.alone, *found.flooded, *found.apart)))


async def _measure(
    starts: list[float], pool: str, found: _Found, *, is_flooded: bool
) -> list[float]:
    times: list[float] = []
    served = [0] * _FLOODERS
    specs = [PoolSpec(name=name, warm=_STOCK, max=4 * _STOCK) for name in (pools.POOL, _OWN)]
    async with pools.managed(*specs) as manager:

        async def call(intended: float) -> None:
            stages = await pools.run_once(manager, pool=pool, intended=intended)
            times.append(stages.first_byte - stages.intended)

        async def flood(number: int) -> None:
            while True:
                await pools.run_once(manager)
                served[number] += 1

        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            if is_flooded:
                for number in range(_FLOODERS * _CALLERS):
                    group.start_soon(flood, number % _FLOODERS)
            found.lost += (await drive(starts, call)).lost
            group.cancel_scope.cancel()
        took = time.perf_counter() - begun
    if is_flooded:
        found.shares.append(quantiles.jain(served))
        found.served.append(sum(served) / took)
    return times
