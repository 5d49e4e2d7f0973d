"""`Embedded`: the manager behind one client, and which of its sandboxes the client has.

It lives on the loop of the client's portal; nothing of it is for other threads.  It exists because
a manager lists every sandbox, those that wait in its pools included, while a client speaks of those
that it has created.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from sandpool.client.records import SandboxRecord, sandbox_record
from sandpool.errors import AcquireTimeout, SandboxNotFound
from sandpool.manager.local import LocalSandboxManager
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import NativeSandboxConfig, SandboxType
from sandpool.service import Sandbox


@dataclass(frozen=True, slots=True)
class Held:
    """A sandbox that the client has created."""

    sandbox: Sandbox
    pool_id: str | None
    """The pool that it was claimed from; None: it was made by itself."""


class Embedded:
    """A started manager and the sandboxes that were created through it."""

    def __init__(self, manager: LocalSandboxManager) -> None:
        """Begin with none."""
        self.manager = manager
        self._held: dict[str, Held] = {}

    async def claim(self, pool_id: str, *, timeout: float | None) -> Held:
        """Take a sandbox from a pool; raises what `SandboxService.claim` does."""
        sandbox = await self.manager.claim(pool_id, timeout=timeout)
        return self._hold(Held(sandbox, pool_id))

    async def make(self, config: NativeSandboxConfig, *, timeout: float | None) -> Held:
        """Make a sandbox that belongs to no pool.

        Raises what `SandboxService.create_sandbox` does, and `AcquireTimeout`.
        """
        sandbox_id: str | None = None
        with anyio.move_on_after(timeout):
            sandbox_id = await self.manager.create_sandbox(SandboxType.NATIVE, config)
        if sandbox_id is None:
            raise AcquireTimeout(f"no sandbox was made within {timeout}s", step="create")
        sandbox = await self.manager.get_sandbox(sandbox_id)
        if not isinstance(sandbox, LocalSandbox):
            raise SandboxNotFound(f"sandbox {sandbox_id} was deleted while it was being made")
        return self._hold(Held(sandbox, None))

    async def list(self) -> list[SandboxRecord]:
        """Describe those that have not ended, oldest first."""
        records: list[SandboxRecord] = []
        for sandbox_id, held in list(self._held.items()):
            info = await self.manager.get_sandbox_info(sandbox_id)
            if info is None:
                self._held.pop(sandbox_id, None)
            else:
                records.append(sandbox_record(info, held.pool_id))
        return records

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """Describe one; `SandboxNotFound`, also once it has ended and is gone."""
        held = await self.find(sandbox_id)
        info = await self.manager.get_sandbox_info(sandbox_id)
        if info is None:
            self._held.pop(sandbox_id, None)
            raise _missing(sandbox_id)
        return sandbox_record(info, held.pool_id)

    async def find(self, sandbox_id: str) -> Held:
        """Return one; `SandboxNotFound`."""
        held = self._held.get(sandbox_id)
        if held is None:
            raise _missing(sandbox_id)
        return held

    async def delete(self, sandbox_id: str, *, missing_ok: bool = False) -> None:
        """End one and forget it; `SandboxNotFound` unless that is all right."""
        if sandbox_id not in self._held:
            if missing_ok:
                return
            raise _missing(sandbox_id)
        # Cancel: it stays in the list until it is gone, so that it can be deleted again.
        await self.manager.delete_sandbox(sandbox_id)
        self._held.pop(sandbox_id, None)

    def _hold(self, held: Held) -> Held:
        self._held[held.sandbox.id] = held
        return held


@asynccontextmanager
async def embedded(make_manager: Callable[[], LocalSandboxManager]) -> AsyncGenerator[Embedded]:
    """Start a manager on the running loop, and stop it at the end."""
    async with make_manager() as manager:
        yield Embedded(manager)


def _missing(sandbox_id: str) -> SandboxNotFound:
    return SandboxNotFound(f"this client has no sandbox {sandbox_id}")
