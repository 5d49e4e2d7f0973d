"""How a pool's cost grows with its size, and its misses against theory; in plain results.

A *node* has a hundred sandboxes and twenty claims a second, whose items take half a second to make
on average; the stock is what theory asks for so that one claim in a hundred misses.  What is many
nodes' worth goes through one pool and one planner, unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sandpool.pool import Policy
from sandpool.testing import theory, traces
from sandpool.testing.behaviour import Behaviour, Step, Time, exponential, fixed, lognormal
from sandpool.testing.simulation import Scenario, memory_per_item, simulate

PER_NODE = 100
"""Sandboxes of one node, lent and idle."""

_CLAIMS = 20.0
_LEAD = 0.5
_MISSES = 0.01
_ENOUGH = 1_000_000
"""Callers that may wait: in a simulation none is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What a lease costs in a pool of one size; all of it measured."""

    sandboxes: int
    """Lent, idle and being made, in the mean."""
    pools: int
    has_lifetime: bool
    """Whether items last for a time, so that each has an end to be minded."""
    leases: int
    """How many were measured."""
    cpu_us: float
    """Processor time of one lease, the simulation of it included, in microseconds."""
    planning_us: float
    """What the planner and what follows at once take of it."""
    plans: float
    """How often the pool brought itself to its plan, for each lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an idle item takes in the pool's own process; measured."""

    sandboxes: int
    bytes_each: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """The share of callers that found nothing ready."""

    arrivals: str
    callers: int
    stock: int
    theory: float
    simulated: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstWait:
    """How long one caller of a burst waits, in seconds."""

    place: int
    theory: float
    simulated: float


def growth(
    sandboxes: int, *, leases: int, warm_up: float, pools: int = 1, lifetime: float | None = None
) -> tuple[Growth, Misses]:
    """Measure `leases` leases, of all the pools together, once `warm_up` seconds have passed."""
    each = sandboxes / pools
    rate = _CLAIMS * each / PER_NODE
    stock = theory.stock_for(rate * _LEAD, _MISSES)
    outcome = simulate(
        Scenario(
            # The ceiling is out of the way: with it, not stock but leases would make callers wait.
            policy=Policy(
                warm=stock,
                max=math.ceil(2 * each),
                builders=math.ceil(2 * each),
                max_waiting=_ENOUGH,
                lifetime=lifetime,
                expiry_spread=0.0 if lifetime is None else 0.3,
            ),
            behaviour=Behaviour(create=Step(exponential(_LEAD)), destroy=Step(fixed(0.01))),
            trace=partial(traces.poisson, rate),
            hold=exponential((each - stock) / rate),
            seconds=warm_up + leases / rate / pools,
            warm_up=warm_up,
            pools=pools,
        )
    )
    cost = outcome.cost
    found = Growth(
        sandboxes=sandboxes,
        pools=pools,
        has_lifetime=lifetime is not None,
        leases=cost.leases,
        cpu_us=cost.cpu_per_lease * 1e6,
        planning_us=cost.planning_per_lease * 1e6,
        plans=cost.plans_per_lease,
    )
    name = f"Poisson, {rate:g}/s at each of {pools} pools"
    return found, Misses(
        arrivals=name,
        callers=outcome.waits.callers,
        stock=stock,
        theory=theory.refill_misses(rate * _LEAD, stock),
        simulated=outcome.waits.miss_rate,
    )


def memory(sandboxes: int) -> Memory:
    """Measure what a pool keeps of each of so many idle items."""
    return Memory(sandboxes=sandboxes, bytes_each=memory_per_item(sandboxes))


def misses(seconds: float) -> list[Misses]:
    """Simulate `seconds` seconds of several kinds of arrivals, a hundred a second in the mean."""
    lead, stock = 0.05, 12
    steady = theory.refill_misses(100 * lead, stock)
    poisson = partial(traces.poisson, 100.0)
    found = [
        _misses(f"Poisson, {name} refill time", poisson, time, stock, steady, seconds)
        for name, time in (
            ("fixed", fixed(lead)),
            ("exponential", exponential(lead)),
            ("log-normal", lognormal(0.04, _p99_of_mean(lead, 0.04))),
        )
    ]
    found.append(
        _misses(
            "Poisson, 70/s, one builder of 100/s",
            partial(traces.poisson, 70.0),
            exponential(0.01),
            13,
            theory.queue_misses(0.7, 13),
            seconds,
            builders=1,
        )
    )
    calm, busy, calm_seconds, busy_seconds = 50.0, 350.0, 10.0, 2.0

    def bursts(seed: int) -> Iterator[float]:
        return traces.bursts(
            calm=calm, busy=busy, calm_seconds=calm_seconds, busy_seconds=busy_seconds, seed=seed
        )

    stock = 26
    by_rate = theory.varying_misses([(calm_seconds, calm), (busy_seconds, busy)], lead, stock)
    found.append(
        _misses("bursts: 50/s, now and then 350/s", bursts, fixed(lead), stock, by_rate, seconds)
    )

    def diurnal(seed: int) -> Iterator[float]:
        return traces.diurnal(100.0, 0.8, 60.0, seed)

    stock = 18
    by_rate = theory.varying_misses(
        ((1.0, 100 * (1 + 0.8 * math.sin(math.tau * step / 360))) for step in range(360)),
        lead,
        stock,
    )
    found.append(
        _misses("up and down from 20 to 180/s", diurnal, fixed(lead), stock, by_rate, seconds)
    )
    return found


def burst(callers: int, stock: int, rate: float, builders: int) -> list[BurstWait]:
    """Simulate callers that come all at once."""
    outcome = simulate(
        Scenario(
            policy=Policy(warm=stock, max=callers + stock, builders=builders, max_waiting=_ENOUGH),
            behaviour=Behaviour(create=Step(fixed(builders / rate))),
            trace=lambda seed: iter([0.0] * callers),
            hold=fixed(1.0),
            seconds=1.0,
        )
    )
    return [
        BurstWait(place=place, theory=theory.burst_wait(place, stock, rate), simulated=wait)
        for place, wait in enumerate(outcome.waits.in_order, start=stock + 1)
    ]


def _misses(
    arrivals: str,
    trace: Callable[[int], Iterator[float]],
    create: Time,
    stock: int,
    expected: float,
    seconds: float,
    builders: int = 10_000,
) -> Misses:
    outcome = simulate(
        Scenario(
            policy=Policy(warm=stock, max=100_000, builders=builders, max_waiting=_ENOUGH),
            behaviour=Behaviour(create=Step(create)),
            trace=trace,
            hold=fixed(0.1),
            seconds=seconds,
            warm_up=1.0,
        )
    )
    return Misses(
        arrivals=arrivals,
        callers=outcome.waits.callers,
        stock=stock,
        theory=expected,
        simulated=outcome.waits.miss_rate,
    )


def _p99_of_mean(mean: float, median: float) -> float:
    """Return the p99 of the log-normal times that have this mean and this median."""
    sigma = math.sqrt(2 * math.log(mean / median))
    return median * math.exp(2.3263478740408408 * sigma)
