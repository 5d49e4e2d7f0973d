"""B7: what many sandboxes that wait cost: memory, processor time, and others' latencies."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from sandpool.bench import pools, procfs, quantiles
from sandpool.bench.report import Curve, Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec

_SIDE = "side"
"""A pool without stock beside the parked: whoever borrows there has one made."""
_BUILDERS = 4
_RAN = 32
"""Sandboxes that have run something when their memory is measured."""
_NEEDED_MIB = 4
"""Memory that each parked one is assumed to need before as many are made."""
_RESERVE_MIB = 1024
_CLAIMS = 5
"""Claims for each sample of something slower: their tail is what counts."""
_IDLE_AIM, _MEMORY_AIM, _FAR, _NEAR = 2_000, 500, 2_000, 50


async def measure(scale: Scale) -> Findings:
    """Park more and more; those for whom this host has no memory are left out."""
    figures: list[Figure] = []
    notes = ["The memory of one: what its processes have resident, their page tables, and slabs."]
    tails: dict[int, float] = {}
    sizes: dict[int, float] = {}
    for count in scale.parked:
        room = procfs.available_mib() - _RESERVE_MIB
        if count * _NEEDED_MIB > room:
            notes.append(f"left out: {count} parked, for which {room:.0f} MiB is too little")
            continue
        parked = _Parked(count, scale)
        figures += await parked.measure()
        tails[count] = parked.tail
        if parked.size is not None:
            sizes[count] = parked.size
    if _FAR in tails and _NEAR in tails:
        name = f"claim with {_FAR} parked ÷ with {_NEAR}, p99"
        value = tails[_FAR] / tails[_NEAR]
        figures.append(
            Figure(
                name=name,
                value=value,
                unit="times",
                n=2 * _CLAIMS * scale.samples,
                goal="density-p99",
            )
        )
    if not sizes:
        notes.append("left out: memory, which only root may look at")
    figures += await _measure_ran(min(_RAN, max(scale.parked)))
    curve = Curve(plot="memory", label="all told", x=tuple(sizes), y=tuple(sizes.values()))
    curves = (curve,) if sizes else ()
    return Findings(figures=tuple(figures), curves=curves, notes=tuple(notes))


class _Parked:
    """One number of parked sandboxes, and what is measured with it."""

    def __init__(self, count: int, scale: Scale) -> None:
        self._count = count
        self._scale = scale
        self.tail = 0.0
        """The p99 of a claim."""
        self.size: float | None = None
        """MiB each, all told; None: nobody may know."""

    async def measure(self) -> list[Figure]:
        async with _side_pool() as manager:
            slab = procfs.slab_mib()
            most = self._count + self._scale.callers
            await _park(manager, self._count, most)
            slab = procfs.slab_mib() - slab
            figures = [*self._memory(slab), await self._idle()]
            figures += await self._latencies(manager)
            begun = time.perf_counter()
            await manager.delete_pool(pools.POOL, force=True)
            closing = time.perf_counter() - begun
        goal = "close-500" if self._count == _MEMORY_AIM else None
        name = f"close of a pool of {self._count}"
        return [*figures, Figure(name=name, value=closing, unit="s", n=1, goal=goal)]

    def _memory(self, slab: float) -> list[Figure]:
        held = procfs.memory(procfs.in_sandboxes())
        if held is None:
            return []
        figures = _parts(f"memory of each of {self._count} parked", held, slab, self._count)
        self.size = figures[0].value
        if self._count == _MEMORY_AIM:
            figures[0] = figures[0].model_copy(update={"goal": "memory-idle"})
        return figures

    async def _idle(self) -> Figure:
        await anyio.sleep(min(1.0, self._scale.idle))  # until what the fill has left is done
        # To look at thousands of processes takes us longer than they do: our own time is apart.
        below = procfs.processor_seconds_below(os.getpid())
        own = time.process_time()
        await anyio.sleep(self._scale.idle)
        own = time.process_time() - own
        used = own + procfs.processor_seconds_below(os.getpid()) - below
        goal = "idle-cpu" if self._count == _IDLE_AIM else None
        name = f"processor time with {self._count} parked"
        share = 100 * used / self._scale.idle
        return Figure(name=name, value=share, unit="% of a core", n=1, goal=goal)

    async def _latencies(self, manager: LocalSandboxManager) -> list[Figure]:
        claims: list[float] = []
        creations: list[float] = []
        for _ in range(_CLAIMS * self._scale.samples):
            await manager.wait_pool_warm(pools.POOL)
            claims.append(await _borrowed(manager, pools.POOL))
        await manager.wait_pool_warm(pools.POOL)
        for _ in range(self._scale.samples):
            creations.append(await _borrowed(manager, _SIDE))
            await pools.wait_empty(manager, _SIDE)
        self.tail = quantiles.quantile(claims, 0.99)
        beside = f"with {self._count} parked"
        return [
            *quantiles.latencies(f"claim {beside}", [claims], longest=False),
            *quantiles.latencies(f"creation {beside}", [creations], longest=False),
        ]


async def _borrowed(manager: LocalSandboxManager, pool: str) -> float:
    begun = time.perf_counter()
    tenancy = await manager.borrow(pool)
    took = time.perf_counter() - begun
    tenancy.end()
    return took


@asynccontextmanager
async def _side_pool() -> AsyncGenerator[LocalSandboxManager]:
    """Run a manager whose template has started, and nothing else."""
    async with pools.managed(PoolSpec(name=_SIDE, warm=0, max=4)) as manager:
        await pools.run_once(manager, pool=_SIDE)
        await pools.wait_empty(manager, _SIDE)
        yield manager


async def _park(manager: LocalSandboxManager, count: int, most: int) -> None:
    spec = PoolSpec(name=pools.POOL, warm=count, max=most, builders=_BUILDERS)
    await manager.create_pool(spec)
    await manager.wait_pool_warm(pools.POOL)


async def _measure_ran(count: int) -> list[Figure]:
    """Measure what sandboxes hold after a run; they are lent without ever being replaced."""
    async with _side_pool() as manager, AsyncExitStack() as stack:
        slab = procfs.slab_mib()
        await _park(manager, count, count)
        for _ in range(count):
            sandbox = await stack.enter_async_context(manager.lease(pools.POOL))
            await sandbox.run_code(pools.PROGRAM)
        held = procfs.memory(procfs.in_sandboxes())
        slab = procfs.slab_mib() - slab
    if held is None:
        return []
    figures = _parts(f"memory of each of {count} after a run", held, slab, count)
    return [figures[0].model_copy(update={"goal": "memory-ran"}), *figures[1:]]


def _parts(name: str, held: procfs.Memory, slab: float, count: int) -> list[Figure]:
    """Return what each of so many holds: all of it first, and then what it is made of."""
    parts = {
        "all told": held.resident + held.tables + max(0.0, slab),
        "resident (PSS)": held.resident,
        "written to (private dirty)": held.private,
        "page tables": held.tables,
        "slabs of the kernel": slab,
    }
    return [
        Figure(name=f"{name}, {part}", value=value / count, unit="MiB", n=count)
        for part, value in parts.items()
    ]
