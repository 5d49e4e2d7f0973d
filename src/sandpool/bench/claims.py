"""B1: hand-overs of warm sandboxes, at rates from one a second until saturation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sandpool.bench import arrivals, pools, quantiles
from sandpool.bench.open_loop import drive
from sandpool.bench.report import Curve, Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.manager.local import LocalSandboxManager

_STOCK = 16
_STEP = 100
_STEP_SECONDS = 5.0
_AIM = 100
"""The rate that the targets speak of."""


@dataclass
class _Rate:
    """What calls at one rate have found; a list for each repeat, seconds."""

    hits: list[list[float]] = field(default_factory=list[list[float]])
    misses: list[list[float]] = field(default_factory=list[list[float]])
    handing: list[list[float]] = field(default_factory=list[list[float]])
    """Of hits, without what they waited for their own event loop."""
    achieved: list[float] = field(default_factory=list[float])
    lost: int = 0
    is_saturated: bool = False

    @property
    def missed(self) -> list[float]:
        """The share of misses, in percent, in each repeat."""
        return [
            100 * len(misses) / max(1, len(hits) + len(misses))
            for hits, misses in zip(self.hits, self.misses, strict=True)
        ]


async def measure(scale: Scale) -> Findings:
    """Measure all rates that are asked for, and higher ones until they are too much."""
    seconds = dict(scale.rates)
    found: dict[float, _Rate] = {}
    for repeat in range(scale.repeats):
        for rate in arrivals.rates_to_try(tuple(seconds), _STEP, scale.highest_rate):
            if rate not in seconds and any(state.is_saturated for state in found.values()):
                break
            state = found.setdefault(rate, _Rate())
            await _measure_rate(rate, seconds.get(rate, _STEP_SECONDS), scale.seed + repeat, state)
    figures = [figure for rate, state in found.items() for figure in _figures(rate, state)]
    too_much = [rate for rate, state in found.items() if state.is_saturated]
    notes = [
        f"A pool of {_STOCK}, up to four times as many alive, 4 builders. A call borrows and gives "
        "back at once, which has the sandbox destroyed and replaced.",
        f"Saturated at {min(too_much):g}/s."
        if too_much
        else f"Not saturated at {max(found):g}/s, the highest rate tried.",
    ]
    return Findings(figures=tuple(figures), curves=tuple(_curves(found)), notes=tuple(notes))


async def _measure_rate(rate: float, seconds: float, seed: int, state: _Rate) -> None:
    async with pools.warm_pool(warm=_STOCK) as manager:
        calls = _Calls(manager)
        starts = arrivals.poisson(rate, seconds, seed)
        course = await drive(starts, calls.one)
    state.hits.append(calls.hits)
    state.misses.append(calls.misses)
    state.handing.append(calls.handing)
    # Over all the time that callers had to come, however early the last one came.
    state.achieved.append(course.served / max(seconds, course.took))
    state.lost += course.lost
    is_too_much = arrivals.is_saturated(seconds=seconds, took=course.took, unserved=course.lost)
    state.is_saturated = state.is_saturated or is_too_much


class _Calls:
    """One run's calls and their latencies from the intended start."""

    def __init__(self, manager: LocalSandboxManager) -> None:
        self._manager = manager
        self.hits: list[float] = []
        self.misses: list[float] = []
        self.handing: list[float] = []

    async def one(self, intended: float) -> None:
        is_hit = pools.has_stock(self._manager)
        begun = time.perf_counter()
        tenancy = await self._manager.borrow(pools.POOL)
        lent = time.perf_counter()
        tenancy.end()
        (self.hits if is_hit else self.misses).append(lent - intended)
        if is_hit:
            self.handing.append(lent - begun)


def _figures(rate: float, state: _Rate) -> list[Figure]:
    name = f"claim at {rate:g}/s"
    # The tail counts from the intended start: whatever delays a hand-over is part of it.
    whole, alone = (
        ({"p99": "hand-over-p99"}, {"p50": "hand-over-p50"}) if rate == _AIM else ({}, {})
    )
    return [
        *quantiles.latencies(f"{name}, hits, from the intended start", state.hits, goals=whole),
        *quantiles.latencies(f"{name}, hits, of which hand-over", state.handing, goals=alone),
        *quantiles.latencies(f"{name}, misses, from the intended start", state.misses),
        quantiles.steady(f"{name}, misses", state.missed, "%", n=_count(state)),
        quantiles.steady(f"{name}, served", state.achieved, "/s", n=_count(state)),
        Figure(name=f"{name}, not served", value=state.lost, unit="", n=_count(state) + state.lost),
    ]


def _count(state: _Rate) -> int:
    return sum(map(len, (*state.hits, *state.misses)))


def _curves(found: dict[float, _Rate]) -> list[Curve]:
    pooled = {
        rate: [seconds for repeat in (*state.hits, *state.misses) for seconds in repeat]
        for rate, state in found.items()
    }
    pooled = {rate: samples for rate, samples in pooled.items() if samples}
    curves: list[Curve] = []
    for rate, samples in pooled.items():
        x, y = quantiles.distribution(samples)
        curves.append(Curve(plot="distribution", label=f"claim at {rate:g}/s", x=x, y=y))
    for label, share in (("claim, p50", 0.5), ("claim, p99", 0.99)):
        points = [quantiles.quantile(samples, share) * 1e3 for samples in pooled.values()]
        curves.append(Curve(plot="rate", label=label, x=tuple(pooled), y=tuple(points)))
    return curves
