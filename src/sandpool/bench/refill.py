"""B5: how fast what was taken is replaced, and what a fresh sandbox costs the processors."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack

import anyio

from sandpool.bench import pools, procfs, quantiles
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.manager.local import LocalSandboxManager

_STOCK = 32
_BUILDERS = (1, 2, 4)


async def measure(scale: Scale) -> Findings:
    """Drain a stock and wait for it; then make, use and destroy for as long as is asked."""
    figures: list[Figure] = []
    for builders in _BUILDERS:
        seconds = [await _measure_drain(builders) for _ in range(scale.repeats)]
        builds = [_STOCK / each for each in seconds]
        name = f"{_STOCK} taken at once, {builders} builder{'s' * (builders > 1)}"
        figures.append(quantiles.steady(f"{name}, time to full", [1e3 * s for s in seconds], "ms"))
        figures.append(quantiles.steady(f"{name}, builds", builds, "/s"))
    note = (
        "A fresh cycle is a borrow, a program that prints a number, and the end, with which the "
        "sandbox is destroyed and replaced. Processor time is that of all processes together."
    )
    return Findings(figures=(*figures, *await _measure_cycles(scale)), notes=(note,))


async def _measure_drain(builders: int) -> float:
    most = 2 * _STOCK
    async with pools.warm_pool(warm=_STOCK, most=most, builders=builders) as manager:
        return await drained(manager, _STOCK)


async def drained(manager: LocalSandboxManager, stock: int) -> float:
    """Take all that is ready, hold it, and return the seconds until the stock is full again."""
    async with AsyncExitStack() as stack:
        begun = time.perf_counter()
        for _ in range(stock):
            await stack.enter_async_context(manager.lease(pools.POOL))
        await manager.wait_pool_warm(pools.POOL)
        return time.perf_counter() - begun


async def _measure_cycles(scale: Scale) -> list[Figure]:
    callers = scale.callers
    times: list[list[float]] = []
    rates: list[float] = []
    costs: list[float] = []
    async with pools.warm_pool(warm=callers, builders=callers) as manager:
        # Without a break between the repeats: it is one run, looked at in parts.
        for _ in range(scale.repeats):
            repeat: list[float] = []
            spent = procfs.processor_seconds(os.getpid())
            begun = time.perf_counter()
            await _cycle(manager, callers, begun + scale.sustained / scale.repeats, repeat)
            took = time.perf_counter() - begun
            spent = procfs.processor_seconds(os.getpid()) - spent
            times.append(repeat)
            rates.append(len(repeat) / took)
            costs.append(1e3 * spent / len(repeat))
    count = sum(map(len, times))
    name = f"fresh cycles, {callers} callers, {scale.sustained:g} s"
    return [
        quantiles.steady(name, rates, "/s", n=count, goal="cycles"),
        quantiles.steady("processor time of a cycle", costs, "ms", n=count, goal="cycle-cpu"),
        *quantiles.latencies("one cycle", times),
    ]


async def _cycle(
    manager: LocalSandboxManager, callers: int, until: float, times: list[float]
) -> None:
    async def call() -> None:
        while not times or time.perf_counter() < until:
            stages = await pools.run_once(manager)
            times.append(stages.done - stages.begun)

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(call)
