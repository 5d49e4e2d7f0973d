"""`PoolBook`: the pools of one namespace, in this dialect's words.

The manager has the pools, and keeps for us what they have besides.  A pool that was made through
another interface is one here, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.home import Home
from sandpool.dialects.tensorlake.models import ContainerInfo, PoolAnswer, PoolRequest
from sandpool.dialects.tensorlake.pool_definition import (
    addition_of,
    blueprint,
    changed_addition,
    changed_spec,
    check_secrets,
    new_addition,
    new_spec,
    pool_answer,
)
from sandpool.dialects.tensorlake.record import Blueprint
from sandpool.ids import new_pool_id
from sandpool.models import PoolInfo

_EXECUTOR = "local"
"""The one place where containers run."""


class PoolBook:
    """Pools by id, which is their name in the manager."""

    def __init__(self, home: Home, secrets: Mapping[str, str], clock: Clock) -> None:
        """Speak of the pools of this home; `secrets` are those that they may name."""
        self._home = home
        self._service = home.service
        self._secrets = secrets
        self._clock = clock
        self._begun_at = clock.utc()

    async def create(self, wanted: PoolRequest) -> str:
        """Make a pool and return its id; `InvalidSpec`, `ImageNotFound`, `NoCapacity`."""
        addition = new_addition(wanted, self._clock.utc())
        check_secrets(addition.secret_names, self._secrets)
        info = await self._home.create_pool(new_spec(new_pool_id(), wanted, addition))
        return info.name

    async def list(self) -> list[PoolAnswer]:
        """Describe all pools, without their containers."""
        found = await self._service.list_pools()
        return [self._answer(info) for info in found]

    async def get(self, pool_id: str, sandboxes: Mapping[str, str]) -> PoolAnswer:
        """Describe a pool and its containers; `PoolNotFound`.

        `sandboxes` maps the ids of containers to those of the sandboxes that they have become.
        """
        answer = self._answer(await self._service.get_pool(pool_id))
        ready, claimed = self._service.pool_membership(pool_id)
        containers = [
            ContainerInfo(id=each, state="Idle", sandbox_id=None, executor_id=_EXECUTOR)
            for each in ready
        ]
        containers += [
            ContainerInfo(
                id=each,
                state="Running",
                # One that was claimed through another interface is a sandbox under its own id.
                sandbox_id=sandboxes.get(each, each),
                executor_id=_EXECUTOR,
            )
            for each in claimed
        ]
        return answer.model_copy(update={"containers": containers})

    async def update(self, pool_id: str, wanted: PoolRequest) -> PoolAnswer:
        """Put another definition in the place of a pool's; raises what `create` does."""
        old = await self._service.get_pool(pool_id)
        before = addition_of(old.spec, self._begun_at)
        after = changed_addition(before, wanted, self._clock.utc())
        check_secrets(after.secret_names, self._secrets)
        info = await self._service.update_pool(pool_id, changed_spec(old.spec, wanted, after))
        if after.differs_in_containers(before):
            self._service.replace_idle(pool_id)
        return self._answer(info)

    async def delete(self, pool_id: str) -> None:
        """Remove a pool; `PoolNotFound`, and `PoolInUse` while it has leases."""
        await self._service.delete_pool(pool_id)

    async def check_exists(self, pool_id: str) -> None:
        """Raise `PoolNotFound` unless there is such a pool."""
        await self._service.get_pool(pool_id)

    async def blueprint(self, pool_id: str) -> Blueprint:
        """Return what the sandboxes of a pool are made from; `PoolNotFound`."""
        info = await self._service.get_pool(pool_id)
        return blueprint(info.spec, addition_of(info.spec, self._begun_at))

    def _answer(self, info: PoolInfo) -> PoolAnswer:
        addition = addition_of(info.spec, self._begun_at)
        return pool_answer(self._home.namespace, info, addition)
