"""B2: from asking for a sandbox to the first output of a program in it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import anyio.to_thread

from sandpool.bench import arrivals, baselines, pools, quantiles
from sandpool.bench.open_loop import drive
from sandpool.bench.report import Curve, Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.models import PoolSpec

HEAVY = ("numpy", "pandas")
_HEAVY_CODE = "import numpy, pandas; print(1)"
_STOCK = 16
_SLOW = 1
"""The rate at which an idle machine shows what its sleep costs."""
_NAME = "borrow to first output of print(1)"


async def measure(scale: Scale) -> Findings:
    """Measure one after the other between baselines, then with arrivals, then with imports."""
    parts = [await _measure_in_turns(scale), await _measure_arrivals(scale)]
    missing = [name for name in HEAVY if importlib.util.find_spec(name) is None]
    if missing:
        note = f"left out: a pool that has imported what is not here: {', '.join(missing)}"
        parts.append(Findings(notes=(note,)))
    else:
        parts.append(await _measure_preload(scale))
    return Findings(
        figures=tuple(figure for part in parts for figure in part.figures),
        curves=tuple(curve for part in parts for curve in part.curves),
        notes=tuple(note for part in parts for note in part.notes),
    )


async def _measure_in_turns(scale: Scale) -> Findings:
    names = (baselines.COLD, baselines.FORK)
    warm: list[list[float]] = []
    others: dict[str, list[list[float]]] = {name: [] for name in names}
    with baselines.open_baselines(*names) as found:
        for _ in range(scale.repeats):
            warm.append([])
            for samples in others.values():
                samples.append([])
            async with pools.warm_pool(warm=2, most=4) as manager:
                for _ in range(scale.samples):
                    await manager.wait_pool_warm(pools.POOL)
                    stages = await pools.run_once(manager)
                    warm[-1].append(stages.first_byte - stages.begun)
                    await manager.wait_pool_warm(pools.POOL)  # what refills is not at their cost
                    for name, take in found.measures.items():
                        others[name][-1].append(await anyio.to_thread.run_sync(take))
    goals = {"p50": "output-p50", "p99": "output-p99"}
    figures = quantiles.latencies(f"{_NAME}, one at a time", warm, goals=goals)
    for name, samples in others.items():
        figures += quantiles.latencies(f"{name}, first output", samples, longest=False)
    figures += [
        *ratio(f"{_NAME} ÷ {baselines.FORK}", warm, others[baselines.FORK], goal="output-fork"),
        *ratio(f"{baselines.COLD} ÷ {_NAME}", others[baselines.COLD], warm),
    ]
    return Findings(figures=tuple(figures), notes=tuple(found.left_out))


def ratio(
    name: str, above: list[list[float]], below: list[list[float]], *, goal: str | None = None
) -> list[Figure]:
    """Return how many times one median is the other, repeat by repeat; nothing without samples."""
    each = [
        quantiles.median(one) / quantiles.median(two)
        for one, two in zip(above, below, strict=True)
        if one and two
    ]
    if not each:
        return []
    return [quantiles.steady(name, each, "times", n=sum(map(len, above)), goal=goal)]


async def _measure_arrivals(scale: Scale) -> Findings:
    found: dict[float, list[list[pools.Stages]]] = {rate: [] for rate, _ in scale.output_rates}
    lost = calls = 0
    for repeat in range(scale.repeats):
        for rate, seconds in scale.output_rates:
            starts = arrivals.poisson(rate, seconds, scale.seed + repeat)
            found[rate].append(await _run_at(starts))
            lost += len(starts) - len(found[rate][-1])
            calls += len(starts)
    figures = [figure for rate, runs in found.items() for figure in _stages(rate, runs)]
    figures.append(Figure(name="arrivals that were not served", value=lost, unit="", n=calls))
    curves: list[Curve] = []
    for rate, runs in found.items():
        totals = [_total(each) for repeat in runs for each in repeat]
        if totals:
            x, y = quantiles.distribution(totals)
            label = f"first output at {rate:g}/s"
            curves.append(Curve(plot="distribution", label=label, x=x, y=y))
    return Findings(figures=tuple(figures), curves=tuple(curves))


async def _run_at(starts: list[float]) -> list[pools.Stages]:
    found: list[pools.Stages] = []
    async with pools.warm_pool(warm=_STOCK) as manager:

        async def call(intended: float) -> None:
            found.append(await pools.run_once(manager, intended=intended))

        await drive(starts, call)
    return found


def _total(stages: pools.Stages) -> float:
    return stages.first_byte - stages.intended


def _stages(rate: float, runs: list[list[pools.Stages]]) -> list[Figure]:
    """Return the whole way and its stages; of misses only the whole way."""
    hits = [[each for each in repeat if each.is_hit] for repeat in runs]
    misses = [[each for each in repeat if not each.is_hit] for repeat in runs]
    name = f"first output at {rate:g}/s"
    goals = {"p99": "output-slow-p99"} if rate == _SLOW else None
    whole = f"{name}, hits, from the intended start"
    figures = quantiles.latencies(
        whole, [list(map(_total, repeat)) for repeat in hits], goals=goals
    )
    for stage, length in _STAGES.items():
        samples = [list(map(length, repeat)) for repeat in hits]
        figures += quantiles.latencies(f"{name}, of which {stage}", samples, longest=False)
    missed = f"{name}, misses, from the intended start"
    return figures + quantiles.latencies(missed, [list(map(_total, repeat)) for repeat in misses])


_STAGES: Mapping[str, Callable[[pools.Stages], float]] = MappingProxyType(
    {
        "queue": lambda each: each.begun - each.intended,
        "hand-over": lambda each: each.lent - each.begun,
        "run until first byte": lambda each: each.first_byte - each.lent,
        "first byte until the end": lambda each: each.done - each.first_byte,
    }
)


async def _measure_preload(scale: Scale) -> Findings:
    warm: list[list[float]] = []
    cold: list[list[float]] = []
    spec = PoolSpec(name="heavy", preload=HEAVY, warm=2, max=4, memory_mb=1024)
    for _ in range(scale.repeats):
        warm.append([])
        cold.append([])
        async with pools.managed(spec) as manager:
            for _ in range(scale.slow_samples):
                await manager.wait_pool_warm("heavy")
                stages = await pools.run_once(manager, pool="heavy", code=_HEAVY_CODE)
                warm[-1].append(stages.first_byte - stages.begun)
                await manager.wait_pool_warm("heavy")
                command = (sys.executable, "-c", _HEAVY_CODE)
                cold[-1].append(await anyio.to_thread.run_sync(baselines.until_output, command))
    return Findings(
        figures=(
            *quantiles.latencies(
                "first output with numpy and pandas preloaded", warm, goals={"p50": "preload-p50"}
            ),
            *quantiles.latencies(
                "importing numpy and pandas in a new interpreter", cold, longest=False
            ),
            *ratio("importing ÷ preloaded", cold, warm, goal="preload-import"),
        )
    )
