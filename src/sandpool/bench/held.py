"""B3: more runs in sandboxes that somebody holds, and cells in a context of one."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import anyio

from sandpool.bench import pools, quantiles
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.service import Sandbox

_AT_ONCE = (1, 2, 4, 8, 16)


async def measure(scale: Scale) -> Findings:
    """Run a program again and again in 1 to 16 sandboxes at the same time."""
    figures: list[Figure] = []
    for count in _AT_ONCE:
        times: list[list[float]] = []
        rates: list[float] = []
        async with AsyncExitStack() as stack:
            manager = await stack.enter_async_context(pools.warm_pool(warm=count, most=count))
            held = [
                await stack.enter_async_context(manager.lease(pools.POOL)) for _ in range(count)
            ]
            for sandbox in held:
                await sandbox.run_code(pools.PROGRAM)  # the first run is not one of these
            for _ in range(scale.repeats):
                begun = time.perf_counter()
                repeat: list[float] = []
                async with anyio.create_task_group() as group:
                    for sandbox in held:
                        group.start_soon(_run_again, sandbox, scale.samples, repeat)
                times.append(repeat)
                rates.append(len(repeat) / (time.perf_counter() - begun))
        name = f"run in {count} held" if count > 1 else "second run in a held sandbox"
        goals = {"p50": "second-run-p50"} if count == 1 else None
        figures += quantiles.latencies(name, times, goals=goals)
        figures.append(
            quantiles.steady(f"runs in {count} held", rates, "/s", n=sum(map(len, times)))
        )
    return Findings(figures=(*figures, *await _cells(scale)))


async def _cells(scale: Scale) -> list[Figure]:
    """Run the program again and again in one context: in the same process each time."""
    times: list[list[float]] = []
    async with pools.warm_pool(warm=1, most=1) as manager, manager.lease(pools.POOL) as sandbox:
        context = await sandbox.contexts.open()
        await context.run(pools.PROGRAM)
        for _ in range(scale.repeats):
            repeat: list[float] = []
            for _ in range(scale.samples):
                begun = time.perf_counter()
                await context.run(pools.PROGRAM)
                repeat.append(time.perf_counter() - begun)
            times.append(repeat)
    return quantiles.latencies("cell in a held context", times)


async def _run_again(sandbox: Sandbox, samples: int, times: list[float]) -> None:
    for _ in range(samples):
        begun = time.perf_counter()
        await sandbox.run_code(pools.PROGRAM)
        times.append(time.perf_counter() - begun)
