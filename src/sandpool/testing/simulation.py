"""`simulate`: the real pool against a trace of callers, in virtual time.

Pool, planner, queue and leases are those that serve real sandboxes; only the items are nothing, and
time jumps from one event to the next.  So there are two kinds of figures, which `Outcome` keeps
apart: how long callers waited is *simulated*, and what the pool's decisions cost is *measured*, in
processor time of this machine.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import anyio
from anyio.abc import TaskGroup

from sandpool.errors import NoCapacity
from sandpool.pool import Lease, Policy, Pool
from sandpool.pool.backoff import Backoff
from sandpool.testing.behaviour import Behaviour, Time
from sandpool.testing.simulated_factory import SimulatedFactory, SimulatedItem
from sandpool.testing.virtual_clock import VirtualClock

Meter = Callable[[], float]
"""Reads the processor time that this process has had, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated."""

    policy: Policy
    behaviour: Behaviour
    trace: Callable[[int], Iterator[float]]
    """Returns the arrivals at one pool, from a seed."""
    hold: Time
    """How long each caller keeps its item."""
    seconds: float
    """How long callers come, on the virtual clock."""
    warm_up: float = 0.0
    """How much of that at the beginning counts for nothing."""
    pools: int = 1
    """How many of these pools there are, each with callers of its own."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Simulated: how it went for the callers that came after the warm-up."""

    callers: int
    misses: int
    """Those that found nothing ready."""
    p50: float
    """Of the seconds that callers waited, those that did not wait included."""
    p99: float
    longest: float
    in_order: tuple[float, ...]
    """The waits of those that had to, in the order in which they were served."""

    @property
    def miss_rate(self) -> float:
        """The share of callers that found nothing ready."""
        return self.misses / self.callers if self.callers else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Measured: the processor time of the decisions after the warm-up."""

    leases: int
    """Leases that ended, each with the creation and the destruction of an item."""
    cpu: float
    """Seconds for all of it, the event loop and the simulation of callers and items included."""
    planned: int
    """How often the pool has brought itself to what its plan says."""
    planning: float
    """Seconds of `cpu` that were spent with that."""

    def since(self, earlier: Cost) -> Cost:
        """Return what has been spent since then."""
        return Cost(
            leases=self.leases - earlier.leases,
            cpu=self.cpu - earlier.cpu,
            planned=self.planned - earlier.planned,
            planning=self.planning - earlier.planning,
        )

    @property
    def cpu_per_lease(self) -> float:
        """Seconds for one lease, from the claim to the end of its item and its replacement."""
        return self.cpu / self.leases if self.leases else 0.0

    @property
    def plans_per_lease(self) -> float:
        """How often the pool looked at its plan for one lease."""
        return self.planned / self.leases if self.leases else 0.0

    @property
    def planning_per_lease(self) -> float:
        """Seconds of that in the planner and in what follows from it."""
        return self.planning / self.leases if self.leases else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What has been found."""

    waits: Waits
    cost: Cost
    most_alive: int
    """The most items that the pools had at one time, those being destroyed aside."""
    created: int
    destroyed: int
    """Equal to `created`, once all pools are closed, unless something was lost."""
    unserved: int
    """Callers that came and were never served: none, unless the pool lost one."""


def simulate(scenario: Scenario, *, meter: Meter = time.process_time) -> Outcome:
    """Run it to the end of its last caller."""
    clock = VirtualClock()
    return clock.run(_Simulation(scenario, clock, meter).run)


def memory_per_item(count: int) -> float:
    """Return the bytes of this process that a pool takes for each of `count` idle items."""
    clock = VirtualClock()

    async def fill() -> float:
        factory = SimulatedFactory(Behaviour(), clock=clock)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        policy = Policy(warm=count, max=count, builders=count)
        async with Pool(factory, policy, clock=clock) as pool:
            await pool.wait_warm()
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (after - before) / count

    return clock.run(fill)


class _MeteredPool(Pool[SimulatedItem]):
    """Counts how often it acts, and what that costs."""

    meter: Meter = time.process_time
    acts = 0
    acting = 0.0
    most_alive = 0

    def _act(self) -> None:
        begun = self.meter()
        super()._act()
        self.acting += self.meter() - begun
        self.acts += 1
        self.most_alive = max(self.most_alive, self._slots.alive)


class _Simulation:
    def __init__(self, scenario: Scenario, clock: VirtualClock, meter: Meter) -> None:
        self._scenario = scenario
        self._clock = clock
        self._meter = meter
        self._cost = Cost(leases=0, cpu=0.0, planned=0, planning=0.0)
        self._sources = [
            _Source(scenario, clock, meter, scenario.seed * scenario.pools + number)
            for number in range(scenario.pools)
        ]

    async def run(self) -> Outcome:
        async with anyio.create_task_group() as group:
            for source in self._sources:
                await group.start(source.pool.run)
            for source in self._sources:
                await source.pool.wait_warm()
            await self._serve()
            for source in self._sources:
                await source.pool.aclose()
        return Outcome(
            waits=_waits([wait for source in self._sources for wait in source.waits]),
            cost=self._cost,
            most_alive=sum(source.pool.most_alive for source in self._sources),
            created=sum(source.factory.created for source in self._sources),
            destroyed=sum(source.factory.destroyed for source in self._sources),
            unserved=sum(source.came - source.served for source in self._sources),
        )

    async def _serve(self) -> None:
        """Let the callers come, and wait for the last of them to be served."""
        scenario = self._scenario
        async with anyio.create_task_group() as callers:
            for source in self._sources:
                callers.start_soon(source.send, callers)
            await self._clock.sleep(scenario.warm_up)
            before = self._spent()
            await self._clock.sleep(scenario.seconds - scenario.warm_up)
            self._cost = self._spent().since(before)

    def _spent(self) -> Cost:
        return Cost(
            leases=sum(source.ended for source in self._sources),
            cpu=self._meter(),
            planned=sum(source.pool.acts for source in self._sources),
            planning=sum(source.pool.acting for source in self._sources),
        )


class _Source:
    """One pool and its callers."""

    def __init__(self, scenario: Scenario, clock: VirtualClock, meter: Meter, seed: int) -> None:
        self._scenario = scenario
        self._clock = clock
        self._trace = scenario.trace(seed)
        # Each has a series of its own: equal ones would let callers come when items are slow.
        self._holds = Random(f"holds {seed}")  # noqa: S311 - to be the same each time
        chances = Random(f"chances {seed}")  # noqa: S311 - as above
        self.factory = SimulatedFactory(scenario.behaviour, clock=clock, seed=~seed)
        self.pool = _MeteredPool(
            self.factory,
            scenario.policy,
            clock=clock,
            backoff=Backoff(chances.random),
            chance=chances.random,
        )
        self.pool.meter = meter
        self.came = 0
        self.served = 0
        self.ended = 0
        self.waits: list[float | None] = []
        """Of those that count, in the order in which they were served; None: had not to."""

    async def send(self, group: TaskGroup) -> None:
        """Let callers come, each at its time."""
        begun = self._clock.now()
        counts_from = begun + self._scenario.warm_up
        for arrival in self._trace:
            if arrival >= self._scenario.seconds:
                return
            await anyio.sleep_until(begun + arrival)
            self.came += 1
            counts = self._clock.now() >= counts_from
            try:
                lease = self.pool.acquire_nowait()
            except NoCapacity:
                group.start_soon(self._wait, counts)
                continue
            self._hold(lease, None, counts)

    async def _wait(self, counts: bool) -> None:
        begun = self._clock.now()
        lease = await self.pool.acquire()
        self._hold(lease, self._clock.now() - begun, counts)

    def _hold(self, lease: Lease[SimulatedItem], wait: float | None, counts: bool) -> None:
        self.served += 1
        if counts:
            self.waits.append(wait)
        hold = self._scenario.hold(self._holds)
        asyncio.get_running_loop().call_later(hold, self._end, lease)

    def _end(self, lease: Lease[SimulatedItem]) -> None:
        self.ended += not lease.is_over
        lease.release_nowait()


def _waits(waits: list[float | None]) -> Waits:
    found = sorted(wait or 0.0 for wait in waits)
    in_order = tuple(wait for wait in waits if wait is not None)
    return Waits(
        callers=len(found),
        misses=len(in_order),
        p50=_quantile(found, 0.5),
        p99=_quantile(found, 0.99),
        longest=_quantile(found, 1.0),
        in_order=in_order,
    )


def _quantile(ordered: list[float], share: float) -> float:
    """Return the least of the values that `share` of them do not exceed; 0 if there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
