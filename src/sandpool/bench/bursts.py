"""B6: many callers at once on a stock that is too small for them, against what theory says."""

from __future__ import annotations

import time

import anyio

from sandpool.bench import pools, quantiles, refill
from sandpool.bench.report import Curve, Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.manager.local import LocalSandboxManager
from sandpool.manager.tenancy import Tenancy
from sandpool.testing import theory

_AIM = (100, 32)
"""The burst and the stock that the targets speak of."""


async def measure(scale: Scale) -> Findings:
    """Let every burst come in each repeat; draw that of the last one."""
    figures: list[Figure] = []
    curves: list[Curve] = []
    for burst, stock in scale.bursts:
        lasts: list[float] = []
        firsts: list[float] = []
        apart: list[float] = []
        waits: list[float] = []
        builds = 0.0
        for _ in range(scale.repeats):
            waits, builds = await _measure_burst(burst, stock)
            firsts.append(1e3 * quantiles.median(waits[:stock]))
            lasts.append(1e3 * waits[-1])
            apart.append(100 * quantiles.distance(waits, _expected(burst, stock, builds)))
        name = f"burst of {burst} on {stock}"
        is_aim = (burst, stock) == _AIM
        figures += [
            quantiles.steady(f"{name}, those who met stock, p50", firsts, "ms"),
            quantiles.steady(
                f"{name}, last served", lasts, "ms", goal="burst-last" if is_aim else None
            ),
            quantiles.steady(
                f"{name}, distance from theory", apart, "%", goal="burst-theory" if is_aim else None
            ),
        ]
        curves += _curves(name, waits, stock, builds)
    note = (
        "Theory: caller k of a burst on S waits (k - S)/μ, with μ from refilling the drained stock "
        "a moment before. The distance is the area between the curves over that below theory's."
    )
    return Findings(figures=tuple(figures), curves=tuple(curves), notes=(note,))


async def _measure_burst(burst: int, stock: int) -> tuple[list[float], float]:
    """Return the waits in the order of their ends, seconds, and the builds a second before."""
    # Room for all who hold one and for the stock: none waits for another to give back.
    async with pools.warm_pool(warm=stock, most=2 * burst + 2 * stock) as manager:
        builds = stock / await refill.drained(manager, stock)
        await manager.wait_pool_warm(pools.POOL)
        waits: list[float] = []
        tenancies: list[Tenancy] = []
        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(burst):
                group.start_soon(_take, manager, begun, waits, tenancies)
        for tenancy in tenancies:
            tenancy.end()
    return waits, builds


async def _take(
    manager: LocalSandboxManager, begun: float, waits: list[float], tenancies: list[Tenancy]
) -> None:
    tenancies.append(await manager.borrow(pools.POOL))
    waits.append(time.perf_counter() - begun)


def _expected(burst: int, stock: int, builds: float) -> list[float]:
    return [theory.burst_wait(place, stock, builds) for place in range(1, burst + 1)]


def _curves(name: str, waits: list[float], stock: int, builds: float) -> list[Curve]:
    places = range(1, len(waits) + 1)
    expected = tuple(1e3 * wait for wait in _expected(len(waits), stock, builds))
    x = tuple(map(float, places))
    return [
        Curve(plot="burst", label=name, x=x, y=tuple(1e3 * wait for wait in waits)),
        Curve(plot="burst", label=f"{name}, theory", x=x, y=expected, is_theory=True),
    ]
