"""`DurableManager`: a manager whose pools are there again after the server's death."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from sandpool.backends.base import Backend
from sandpool.clock import Clock
from sandpool.errors import SandboxDied, SandpoolError
from sandpool.manager.event import PoolEvent
from sandpool.manager.local import LocalSandboxManager
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.tenancy import Tenancy
from sandpool.models import PoolInfo, PoolSpec, SandboxInfo, SandboxManagerConfig
from sandpool.proxy.gate import Gate
from sandpool.server.journal import Journal, PoolRecord
from sandpool.service import Sandbox as ServiceSandbox

_log = logging.getLogger(__name__)


class DurableManager(LocalSandboxManager):
    """Writes down what callers define and hold, and answers for what an earlier server held."""

    def __init__(
        self,
        namespace: str,
        journal: Journal,
        lost: Collection[str],
        *,
        config: SandboxManagerConfig,
        backends: Mapping[str, Callable[[], Backend]] | None,
        images: Mapping[str, str] | None,
        clock: Clock,
        secrets: Mapping[str, str],
        on_event: Callable[[PoolEvent], None],
    ) -> None:
        """Describe the manager of a namespace.

        Args:
            namespace: Whose things it keeps.
            journal: An open one.
            lost: The ids of sandboxes that were held when the last server ended.
            config: As for `LocalSandboxManager`, like the rest.
            backends: What makes sandboxes.
            images: What image names stand for.
            clock: What time is.
            secrets: What pools may ask for by name.
            on_event: Called with what happens to its pools.
        """
        super().__init__(
            config,
            backends=backends,
            images=images,
            clock=clock,
            secrets=secrets,
            first_epoch=journal.first_epoch,
            on_lease=self._note,
            on_event=on_event,
        )
        self._namespace = namespace
        self._journal = journal
        self._lost = frozenset(lost)

    async def restore(self, record: PoolRecord) -> None:
        """Make a pool of the journal again; one that cannot be made is logged and kept there."""
        try:
            await super().create_pool(record.spec, pool_id=record.pool_id)
        except SandpoolError:
            _log.exception(
                "pool %s of namespace %s could not be made again", record.spec.name, self._namespace
            )

    async def create_pool(self, spec: PoolSpec, *, pool_id: str | None = None) -> PoolInfo:
        """Make a pool and remember it."""
        info = await super().create_pool(spec, pool_id=pool_id)
        try:
            await self._journal.put_pool(PoolRecord(self._namespace, info.pool_id, spec))
        except BaseException:
            # Cancel: a pool that would not outlive the server is not what was asked for.
            await super().delete_pool(spec.name, force=True)
            raise
        return info

    async def update_pool(self, name: str, spec: PoolSpec) -> PoolInfo:
        """Give a pool a new definition and remember it."""
        info = await super().update_pool(name, spec)
        # Not `spec`: what its caller was shown in place of a secret is not the secret.
        definition = self._pools.get(name).spec
        await self._journal.put_pool(PoolRecord(self._namespace, info.pool_id, definition))
        return info

    async def delete_pool(self, name: str, *, force: bool = False) -> None:
        """Remove a pool and forget it."""
        await super().delete_pool(name, force=force)
        await self._journal.remove_pool(self._namespace, name)

    async def cleanup_all_sandboxes(self) -> None:
        """Delete everything, and forget the pools."""
        names = [info.name for info in await self.list_pools()]
        await super().cleanup_all_sandboxes()
        for name in names:
            await self._journal.remove_pool(self._namespace, name)

    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None:
        """Return a sandbox; `SandboxDied` for one that ended with an earlier server."""
        found = await super().get_sandbox(sandbox_id)
        if found is None:
            self._check_lost(sandbox_id)
        return found

    async def get_sandbox_info(self, sandbox_id: str) -> SandboxInfo | None:
        """Describe a sandbox; `SandboxDied` for one that ended with an earlier server."""
        found = await super().get_sandbox_info(sandbox_id)
        if found is None:
            self._check_lost(sandbox_id)
        return found

    def usable_sandbox(self, sandbox_id: str) -> ServiceSandbox:
        """Return the handle that calls by this id go to; `SandboxDied` as above."""
        if sandbox_id not in self._sandboxes:
            self._check_lost(sandbox_id)
        return super().usable_sandbox(sandbox_id)

    def find_gate(self, sandbox_id: str) -> Gate:
        """Return the way into a sandbox's ports; `SandboxDied` as above."""
        if sandbox_id not in self._sandboxes:
            self._check_lost(sandbox_id)
        return super().find_gate(sandbox_id)

    def _check_lost(self, sandbox_id: str) -> None:
        if sandbox_id in self._lost:
            raise SandboxDied(
                f"sandbox {sandbox_id} ended when the server was restarted", reason="backend"
            )

    def _note(self, tenancy: Tenancy) -> None:
        self._journal.note_lease(self._namespace, tenancy.id, tenancy.lease_id)
        tenancy.on_end(self._note_end)

    def _note_end(self, tenancy: Tenancy) -> None:
        self._journal.note_end(self._namespace, tenancy.id, tenancy.lease_id)
