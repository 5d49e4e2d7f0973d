"""`Lending`: the pools behind `initialize_pool` and `execute_tool_in_pool`.

The enclave interface knows one pool without a name.  Here it is one named pool for each kind of
sandbox that somebody has asked for: `shared`, `shared-2` and so on.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from sandpool.backends.base import BoxSpec
from sandpool.errors import AcquireTimeout, InvalidSpec, PoolDegraded, PoolNotInitialized
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.pools import Pools
from sandpool.manager.recipe import shared_pool
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.sandbox_pool import SandboxPool
from sandpool.manager.workshop import Workshop
from sandpool.models import PoolSpec, Recycle, SandboxConfig, SandboxType, ToolResult
from sandpool.tools.arguments import check_arguments

_log = logging.getLogger(__name__)

_NAME = "shared"

NewPool = Callable[[PoolSpec, SandboxType, SandboxConfig], SandboxPool]
"""Makes a pool that is not open yet."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What two calls of `initialize_pool` must agree in to mean the same pool."""

    type: SandboxType
    config: str
    """As JSON: a value that two equal configurations share."""
    box: BoxSpec


@dataclass(slots=True, eq=False)
class _Shared:
    kind: _Kind
    pool: SandboxPool
    model: Sandbox
    """A sandbox that never runs; its tools are those of the members."""
    callers: int = 0
    """Calls of `initialize_pool` in progress."""
    opening: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while the pool is being opened, so that equal calls open it once."""
    is_initialized: bool = False

    @property
    def load(self) -> tuple[bool, int]:
        """What to sort by to find the pool that serves a caller soonest."""
        stats = self.pool.pool.stats()
        return stats.ready == 0, stats.waiting


class Lending:
    """Lends sandboxes for the length of one tool call."""

    def __init__(
        self,
        pools: Pools,
        workshop: Workshop,
        new_pool: NewPool,
        *,
        recycle: Recycle | None,
        max_age: float,
    ) -> None:
        """Begin without a pool.

        Args:
            pools: Where pools are opened.
            workshop: What knows which sandboxes there can be.
            new_pool: Makes a pool of them.
            recycle: What happens to a sandbox after each call; None: what suits its backend.
            max_age: Seconds after which an idle sandbox is replaced.
        """
        self._pools = pools
        self._workshop = workshop
        self._new_pool = new_pool
        self._recycle: Recycle | None = recycle
        self._max_age = max_age
        self._shared: list[_Shared] = []

    @property
    def pools(self) -> list[SandboxPool]:
        """The pools that are open."""
        return [shared.pool for shared in self._shared if self._is_open(shared)]

    @property
    def is_initialized(self) -> bool:
        """Whether there is a pool to lend from."""
        return any(shared.is_initialized and self._is_open(shared) for shared in self._shared)

    def free_ids(self) -> list[str]:
        """Return the ids of those not lent, in the order of hand-out; being reset: at the tail."""
        idle = [box.id for pool in self.pools for box in pool.pool.idle()]
        return idle + [key for pool in self.pools for key in pool.members.resetting]

    async def initialize(
        self, size: int, sandbox_type: SandboxType, config: SandboxConfig
    ) -> list[str]:
        """Have a pool of `size` such sandboxes, and return the ids of its members.

        A pool of this kind that is there gets this size.  Raises what is wrong with the
        configuration, or `PoolDegraded` if not one sandbox could be made; then no pool is left.
        """
        model = await self._workshop.prepare(sandbox_type, config)
        shared = self._find_or_add(size, sandbox_type, config, model)
        while not await self._fill(shared):
            # Whoever was opening it was cancelled, and has closed it.
            shared = self._find_or_add(size, sandbox_type, config, model)
        return shared.pool.ids()

    async def _fill(self, shared: _Shared) -> bool:
        """Open a pool and wait for its members; whether it was still there to be opened."""
        shared.callers += 1
        try:
            async with shared.opening:
                if shared.pool.pool.state == "closed":
                    return False
                if not self._pools.has(shared.pool.name):
                    await self._pools.open(shared.pool)
            await self._filled(shared.pool)
            shared.is_initialized = True
        finally:
            shared.callers -= 1
            # Cancel: others may be waiting for the same pool; the last one out takes it along.
            if not shared.is_initialized and not shared.callers:
                with anyio.CancelScope(shield=True):  # bounded by the pool
                    await self._drop(shared)
        return True

    def _find_or_add(
        self, size: int, sandbox_type: SandboxType, config: SandboxConfig, model: Sandbox
    ) -> _Shared:
        box = model.spec if isinstance(model, LocalSandbox) else _stand_in(config)
        kind = _Kind(sandbox_type, config.model_dump_json(), box)
        self._shared = [shared for shared in self._shared if shared.pool.pool.state != "closed"]
        for shared in self._shared:
            if shared.kind == kind:
                if shared.pool.spec.warm != size:
                    sized = shared.pool.spec.model_copy(update={"warm": size, "max": size})
                    shared.pool.update(sized, None)
                return shared
        spec = shared_pool(
            self._free_name(),
            config,
            box,
            size=size,
            recycle=self._recycle,
            max_age=self._max_age,
        )
        shared = _Shared(kind, self._new_pool(spec, sandbox_type, config), model)
        self._shared.append(shared)
        return shared

    async def _filled(self, pool: SandboxPool) -> None:
        """Return once the pool has its members, or has some and cannot have more."""
        try:
            await pool.wait_filled()
        except PoolDegraded as error:
            if not pool.ids():
                raise PoolDegraded(
                    f"no sandbox could be made: {error.cause or error}", cause=error.cause
                ) from error
            _log.warning(
                "pool %s has %d of %d sandboxes so far: %s",
                pool.name,
                len(pool.ids()),
                pool.spec.warm,
                error,
            )

    async def run(
        self, tool_name: str, parameters: Mapping[str, Any], timeout: float | None
    ) -> ToolResult:
        """Run one tool in a sandbox of a pool that has it.

        Arguments are checked before a sandbox is taken.  `timeout` bounds the wait for a sandbox,
        in seconds; 0: do not wait; None: wait without limit.
        """
        if timeout is not None and not timeout >= 0:
            raise InvalidSpec(f"timeout must be a number of seconds, not {timeout!r}")
        shared = self._choose(tool_name)
        check_arguments(tool_name, shared.model.need_tool(tool_name).parameters, parameters)
        try:
            tenancy = await shared.pool.borrow(timeout=timeout)
        except AcquireTimeout as error:
            raise AcquireTimeout(
                f"Timeout waiting for available sandbox from pool after {timeout:g}s",
                step=error.step,
            ) from error
        try:
            return await tenancy.sandbox.execute_tool(tool_name, parameters)
        except anyio.get_cancelled_exc_class():
            tenancy.spoil()
            raise
        finally:
            tenancy.end()

    def _choose(self, tool_name: str) -> _Shared:
        """Return the pool that serves a caller of this tool soonest."""
        there = [shared for shared in self._shared if self._is_open(shared)]
        if not there:
            raise PoolNotInitialized("there is no sandbox pool; call initialize_pool first")
        able = [shared for shared in there if tool_name in shared.model.get_available_tools()]
        # Without one that can, let the model say whether the tool is unknown or only disabled.
        return min(able, key=lambda shared: shared.load) if able else there[0]

    def _is_open(self, shared: _Shared) -> bool:
        pool = shared.pool
        return self._pools.has(pool.name) and self._pools.get(pool.name) is pool

    async def _drop(self, shared: _Shared) -> None:
        if shared in self._shared:
            self._shared.remove(shared)
        if self._is_open(shared):
            await self._pools.close(shared.pool, force=True)

    def _free_name(self) -> str:
        taken = {shared.pool.name for shared in self._shared}
        names = itertools.chain([_NAME], (f"{_NAME}-{number}" for number in itertools.count(2)))
        return next(name for name in names if not self._pools.has(name) and name not in taken)


def _stand_in(config: SandboxConfig) -> BoxSpec:
    """Return what is shown for sandboxes that no backend makes."""
    return BoxSpec(env=dict(config.env_vars), working_dir=config.working_dir)
