"""B4: nothing is warm, and what else could be had in the same time."""

from __future__ import annotations

import anyio.to_thread

from sandpool.bench import baselines, pools, quantiles
from sandpool.bench.first_output import ratio
from sandpool.bench.report import Findings
from sandpool.bench.scale import Scale

_NAME = "nothing warm: create and first output"
_FAST = (baselines.FORK, baselines.COLD, baselines.BUBBLEWRAP, baselines.RUNC)
_RARE = 5
"""The slowest baseline, a container of an engine's, is measured once for so many of the others."""


async def measure(scale: Scale) -> Findings:
    """Measure a miss and its rivals in turns."""
    ours: list[list[float]] = []
    rivals: dict[str, list[list[float]]] = {}
    with baselines.open_baselines(*_FAST, baselines.DOCKER) as found:
        for _ in range(scale.repeats):
            ours.append([])
            for name in found.measures:
                rivals.setdefault(name, []).append([])
            async with pools.warm_pool(warm=0, most=4) as manager:
                await pools.run_once(manager)  # has the template started
                for number in range(scale.samples):
                    stages = await pools.run_once(manager)
                    ours[-1].append(stages.first_byte - stages.begun)
                    await pools.wait_empty(manager)  # what destroys is not at their cost
                    for name, take in found.measures.items():
                        if name != baselines.DOCKER or number % _RARE == 0:
                            rivals[name][-1].append(await anyio.to_thread.run_sync(take))
    figures = quantiles.latencies(_NAME, ours, goals={"p50": "miss-p50"})
    for name, samples in rivals.items():
        figures += quantiles.latencies(f"{name}, first output", samples, longest=False)
        figures += ratio(f"{name} ÷ a miss", samples, ours)
    return Findings(figures=tuple(figures), notes=tuple(found.left_out))
