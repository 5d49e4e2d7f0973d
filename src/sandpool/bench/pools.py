"""Warm pools to measure, and one lease in one of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from sandpool.errors import SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec, SandboxManagerConfig, Stream

POOL = "bench"
"""The name of the pool that is measured."""
PROGRAM = "print(1)"
_ROOM = 20_000
_LOOK = 0.001
"""Seconds between two looks at what no event tells."""


@asynccontextmanager
async def warm_pool(
    *, warm: int, most: int | None = None, builders: int = 4
) -> AsyncGenerator[LocalSandboxManager]:
    """Run a manager with one pool, and wait until it is full."""
    spec = PoolSpec(name=POOL, warm=warm, max=most or 4 * warm, builders=builders)
    async with managed(spec) as manager:
        yield manager


@asynccontextmanager
async def managed(*specs: PoolSpec) -> AsyncGenerator[LocalSandboxManager]:
    """Run a manager with these pools, and wait until they are full."""
    async with LocalSandboxManager(SandboxManagerConfig(max_sandboxes=_ROOM)) as manager:
        for spec in specs:
            await manager.create_pool(spec)
            await manager.wait_pool_warm(spec.name)
        yield manager


@dataclass(frozen=True, slots=True)
class Stages:
    """When the stages of one lease ended, by `time.perf_counter()`."""

    intended: float
    """When it should have begun."""
    begun: float
    """When it did: what came before is the time in the queue of the caller's own event loop."""
    lent: float
    first_byte: float
    done: float
    is_hit: bool
    """Whether a sandbox was ready."""


async def wait_empty(manager: LocalSandboxManager, pool: str = POOL) -> None:
    """Wait until nothing of a pool that keeps no stock is left."""
    while True:
        info = await manager.get_pool(pool)
        if info.created == info.destroyed:
            return
        await anyio.sleep(_LOOK)


def has_stock(manager: LocalSandboxManager, pool: str = POOL) -> bool:
    """Whether a borrow that began now would find a sandbox ready."""
    return bool(manager.pool_membership(pool).ready)


async def run_once(
    manager: LocalSandboxManager,
    *,
    pool: str = POOL,
    code: str = PROGRAM,
    intended: float | None = None,
) -> Stages:
    """Borrow a sandbox, run a program that prints 1 in it, and give it back.

    `SandpoolError` if it printed anything else.
    """
    seen: list[float] = []

    def note(stream: Stream, data: bytes) -> None:
        seen.append(time.perf_counter())

    is_hit = has_stock(manager, pool)
    begun = time.perf_counter()
    tenancy = await manager.borrow(pool)
    try:
        lent = time.perf_counter()
        result = await tenancy.handle.run_code(code, on_output=note)
        done = time.perf_counter()
    finally:
        tenancy.end()
    if result.exit_code != 0 or len(seen) != 1:
        raise SandpoolError(f"a sandbox did not print 1: {result.stdout!r} {result.stderr!r}")
    return Stages(begun if intended is None else intended, begun, lent, seen[0], done, is_hit)
