"""`Backing`: the manager behind one client, and which of its sandboxes the client has.

It lives on the loop of the client's portal; nothing of it is for other threads.  It exists because
a manager lists every sandbox, those that wait in its pools included, while a client speaks of those
that it has created.

A manager of this process is the client's own, and ends with it.  A server is not: its pools stay,
and a sandbox of another client can be found there by its id.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from sandpool.client.http_manager import HttpSandboxManager
from sandpool.client.records import SandboxRecord, Status, sandbox_record, status_word
from sandpool.errors import AcquireTimeout, SandboxDied, SandboxNotFound, SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import NativeSandboxConfig, SandboxType
from sandpool.service import Sandbox

Manager = LocalSandboxManager | HttpSandboxManager

_log = logging.getLogger(__name__)

_END_BOUND = 30.0
"""Seconds that ending a client's sandboxes on a server may take."""


@dataclass(frozen=True, slots=True)
class Held:
    """A sandbox that the client has created."""

    sandbox: Sandbox
    pool_id: str | None
    """The pool that it was claimed from; None: it was made by itself, or by another client."""


class Backing:
    """A started manager and the sandboxes that were created through it."""

    def __init__(self, manager: Manager) -> None:
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
        return self._hold(Held(await self._handle(sandbox_id), None))

    async def list(self) -> list[SandboxRecord]:
        """Describe those that have not ended, oldest first."""
        records: list[SandboxRecord] = []
        for sandbox_id, held in list(self._held.items()):
            try:
                records.append(await self._describe(sandbox_id, held.pool_id))
            except (SandboxNotFound, SandboxDied):
                # The second is what a server says of those that an earlier one had.
                self._held.pop(sandbox_id, None)
        return records

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """Describe one; `SandboxNotFound`, also once it has ended and is gone."""
        held = self._held.get(sandbox_id)
        if held is None and isinstance(self.manager, LocalSandboxManager):
            raise _missing(sandbox_id)
        try:
            return await self._describe(sandbox_id, None if held is None else held.pool_id)
        except SandboxNotFound:
            self._held.pop(sandbox_id, None)
            raise

    async def status(self, sandbox_id: str) -> Status:
        """Return the status of one, whether or not it has ended."""
        try:
            info = await self.manager.get_sandbox_info(sandbox_id)
        except SandboxDied:
            return "failed"
        return "terminated" if info is None else status_word(info.status)

    async def find(self, sandbox_id: str) -> Held:
        """Return one; `SandboxNotFound`."""
        held = self._held.get(sandbox_id)
        if held is not None:
            return held
        if isinstance(self.manager, LocalSandboxManager):
            raise _missing(sandbox_id)
        return Held(await self._handle(sandbox_id), None)

    async def delete(self, sandbox_id: str, *, missing_ok: bool = False) -> None:
        """End one and forget it; `SandboxNotFound` unless that is all right."""
        is_own = sandbox_id in self._held
        if not is_own and isinstance(self.manager, LocalSandboxManager):
            if missing_ok:
                return
            raise _missing(sandbox_id)
        # Cancel: it stays in the list until it is gone, so that it can be deleted again.
        was_there = await self.manager.delete_sandbox(sandbox_id)
        self._held.pop(sandbox_id, None)
        if not (was_there or is_own or missing_ok):
            raise _missing(sandbox_id)

    async def aclose(self) -> None:
        """End the client's sandboxes on a server; those of this process end with their manager.

        Shielded, and bounded; failures are logged.
        """
        if isinstance(self.manager, LocalSandboxManager):
            return
        with anyio.move_on_after(_END_BOUND, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for sandbox_id in list(self._held):
                    group.start_soon(self._end, sandbox_id)
        if scope.cancelled_caught:
            _log.error("sandboxes %s are left on the server", sorted(self._held))

    async def _end(self, sandbox_id: str) -> None:
        try:
            await self.delete(sandbox_id, missing_ok=True)
        except SandpoolError as error:
            _log.warning("sandbox %s is left on the server: %s", sandbox_id, error)

    async def _describe(self, sandbox_id: str, pool_id: str | None) -> SandboxRecord:
        info = await self.manager.get_sandbox_info(sandbox_id)
        if info is None:
            raise _missing(sandbox_id)
        return sandbox_record(info, pool_id)

    async def _handle(self, sandbox_id: str) -> Sandbox:
        if isinstance(self.manager, LocalSandboxManager):
            return self.manager.usable_sandbox(sandbox_id)
        found = await self.manager.get_sandbox(sandbox_id)
        if found is None:
            raise _missing(sandbox_id)
        return found

    def _hold(self, held: Held) -> Held:
        self._held[held.sandbox.id] = held
        return held


@asynccontextmanager
async def backing(make_manager: Callable[[], Manager]) -> AsyncGenerator[Backing]:
    """Start a manager on the running loop, and stop it at the end."""
    async with make_manager() as manager:
        here = Backing(manager)
        try:
            yield here
        finally:
            await here.aclose()


def _missing(sandbox_id: str) -> SandboxNotFound:
    return SandboxNotFound(f"this client has no sandbox {sandbox_id}")
