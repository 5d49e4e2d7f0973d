"""`Pools`: the pools of a manager by name, from their opening to their close."""

from __future__ import annotations

import logging

import anyio

from sandpool.errors import PoolExists, PoolNotFound, SandpoolError
from sandpool.manager.runtime import Runtime
from sandpool.manager.sandbox_pool import SandboxPool

_log = logging.getLogger(__name__)


class Pools:
    """Named pools, each with its background work in the manager's runtime."""

    def __init__(self, runtime: Runtime) -> None:
        """Begin without any."""
        self._runtime = runtime
        self._by_name: dict[str, SandboxPool] = {}

    def all(self) -> list[SandboxPool]:
        """Return them in the order in which they were made."""
        return list(self._by_name.values())

    def has(self, name: str) -> bool:
        """Whether a pool has this name."""
        return name in self._by_name

    def get(self, name: str) -> SandboxPool:
        """Return a pool; `PoolNotFound`."""
        pool = self._by_name.get(name)
        if pool is None:
            raise PoolNotFound(f"there is no pool {name!r}")
        return pool

    async def open(self, pool: SandboxPool) -> None:
        """Take in a new pool and let it fill itself; `PoolExists`.

        Failed or cancelled, it leaves nothing behind.
        """
        if pool.name in self._by_name:
            raise PoolExists(f"there is a pool {pool.name!r} already")
        self._by_name[pool.name] = pool
        try:
            await self._runtime.add(_job(pool), pool.pool.run)
        except BaseException:
            with anyio.CancelScope(shield=True):  # bounded by the pool
                await self.close(pool, force=True)
            raise

    async def close(self, pool: SandboxPool, *, force: bool) -> None:
        """Close a pool and forget it; `PoolInUse` while it has leases, unless `force` ends them."""
        try:
            await pool.pool.aclose(force=force)
        finally:
            # Cancel: a pool whose close has gone this far is of no use to anybody.
            if pool.pool.state == "closed":
                self._runtime.remove(_job(pool))
                if self._by_name.get(pool.name) is pool:
                    del self._by_name[pool.name]

    async def close_all(self) -> None:
        """Close them all at the same time, whatever they are doing."""
        async with anyio.create_task_group() as group:
            for pool in self.all():
                group.start_soon(self._close_quietly, pool)

    async def _close_quietly(self, pool: SandboxPool) -> None:
        try:
            await self.close(pool, force=True)
        except SandpoolError:
            _log.exception("pool %s could not be closed", pool.name)


def _job(pool: SandboxPool) -> str:
    # The id and not the name: a name can be used again while the old pool's work is ending.
    return f"pool {pool.name} ({pool.pool_id})"
