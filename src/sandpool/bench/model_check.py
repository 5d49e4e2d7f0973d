"""B11: the misses that theory predicts for a stock, and those that come."""

from __future__ import annotations

import statistics
import time

import anyio

from sandpool.bench import arrivals, pools, quantiles, refill
from sandpool.bench.open_loop import drive
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.errors import SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.testing import theory

_RATE = 100.0
_STOCKS = (1, 2, 3, 4)
_BUILDERS = 8
"""As many as are ever wanted at one time: the model is of enough builders."""
_LEADS = 20
_DRAINED = 16


async def measure(scale: Scale) -> Findings:
    """Measure the lead time of a refill, predict, and count."""
    figures: list[Figure] = []
    leads = [await _measure_lead(min(_LEADS, scale.samples)) for _ in range(scale.repeats)]
    lead = statistics.mean(each for repeat in leads for each in repeat)
    builds = quantiles.median([await _measure_builds() for _ in range(scale.repeats)])
    figures += quantiles.latencies("from a claim to its replacement", leads, longest=False)
    for stock in _STOCKS:
        shares: list[float] = []
        count = 0
        for repeat in range(scale.repeats):
            calls, misses = await _count_misses(scale, stock, scale.seed + repeat)
            shares.append(100 * misses / calls)
            count += calls
        name = f"misses at {_RATE:g}/s with {stock} in stock"
        figures.append(quantiles.steady(f"{name}, measured", shares, "%", n=count))
        enough = theory.refill_misses(_RATE * lead, stock)
        few = theory.queue_misses(_RATE / builds, stock)
        figures += [
            Figure(name=f"{name}, predicted by {model}", value=100 * share, unit="%", n=known)
            for model, share, known in (
                ("L", enough, sum(map(len, leads))),
                ("μ", few, scale.repeats),
            )
        ]
    note = (
        "By L: P(Poisson(λL) ≥ S), with the mean L of replacements one at a time and enough "
        "builders for all. By μ: (λ/μ)^S, with μ from refilling a drained stock, where builders "
        "are what there is too little of. On few processors the truth lies between."
    )
    return Findings(figures=tuple(figures), notes=(note,))


async def _measure_builds() -> float:
    async with pools.warm_pool(warm=_DRAINED, most=2 * _DRAINED, builders=_BUILDERS) as manager:
        return _DRAINED / await refill.drained(manager, _DRAINED)


async def _measure_lead(samples: int) -> list[float]:
    times: list[float] = []
    async with pools.warm_pool(warm=1, most=4, builders=_BUILDERS) as manager:
        for _ in range(samples):
            begun = time.perf_counter()
            tenancy = await manager.borrow(pools.POOL)
            tenancy.end()
            await manager.wait_pool_warm(pools.POOL)
            times.append(time.perf_counter() - begun)
            await _settle(manager)
    return times


async def _settle(manager: LocalSandboxManager) -> None:
    """Wait until what was given back is gone: it is not to be in the next one's way."""
    while True:
        info = await manager.get_pool(pools.POOL)
        if info.created - info.destroyed == info.ready:
            return
        await anyio.sleep(0.001)


async def _count_misses(scale: Scale, stock: int, seed: int) -> tuple[int, int]:
    async with pools.warm_pool(warm=stock, most=64, builders=_BUILDERS) as manager:
        before = await manager.get_pool(pools.POOL)

        async def call(intended: float) -> None:
            (await manager.borrow(pools.POOL)).end()

        course = await drive(arrivals.poisson(_RATE, scale.model, seed), call)
        if course.lost:
            raise SandpoolError(f"{course.lost} of {course.lost + course.served} were not served")
        after = await manager.get_pool(pools.POOL)
    misses = after.misses - before.misses
    return misses + after.hits - before.hits, misses
