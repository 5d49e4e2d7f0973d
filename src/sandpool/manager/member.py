"""`Members`: makes, checks, renews and destroys the sandboxes of one pool.

It is what a manager's pool has for a factory: the one place where a backend and a pool meet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from sandpool.errors import SandpoolError
from sandpool.manager.choice import Choice
from sandpool.manager.launcher import Launcher
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.registry import Registry, withheld_text
from sandpool.manager.sandbox import Sandbox
from sandpool.models import SandboxStatus

_log = logging.getLogger(__name__)

Maker = Callable[[], Sandbox]
"""Makes a sandbox object with a new id; nothing runs yet."""

_CLEANUP_BOUND = 10.0
"""Seconds that what is left of a failed creation has to go."""


def ignore_death(sandbox: Sandbox) -> None:
    """Do nothing; stands in until a pool listens."""


class Members:
    """Implements `pool.Factory` for sandboxes."""

    def __init__(
        self, pool: str, make: Maker, registry: Registry, launcher: Launcher, made_of: Choice
    ) -> None:
        """Make sandboxes for the pool of this name, with ids in `registry`."""
        self.made_of = made_of
        """What `make` makes."""
        self._pool = pool
        self._make = make
        self._registry = registry
        self.launcher = launcher
        """What makes them ready, and looks whether they are."""
        self.on_death: Callable[[Sandbox], None] = ignore_death
        """Told of each sandbox that dies by itself, or whose server does."""
        self.resetting: list[str] = []
        """The ids of those that are being renewed, oldest first."""
        self._coming: list[Sandbox] = []
        """Those that `create` is making."""

    @property
    def starting(self) -> int:
        """How many of those that are on their way have been made, and are starting."""
        return sum(isinstance(each, LocalSandbox) and each.is_made for each in self._coming)

    async def create(self) -> Sandbox:
        """Make a healthy sandbox; called by the pool.

        Failed or cancelled, it leaves nothing behind, not even an id.
        """
        sandbox = self._make()
        self._registry.add(sandbox, self._pool)
        self._coming.append(sandbox)
        try:
            if isinstance(sandbox, LocalSandbox):
                sandbox.withhold(withheld_text(sandbox.id, self._pool))
            else:
                await sandbox.initialize_tools()
            await sandbox.start()
            await self._admit(sandbox)
        except BaseException:
            # Cancel: a creation that is given up must not outlive the pool's interest in it.
            await self._clear(sandbox)
            raise
        finally:
            self._coming.remove(sandbox)
        return sandbox

    async def check(self, item: Sandbox) -> None:
        """Raise unless the sandbox is healthy; called before it is lent and now and then."""
        if isinstance(item, LocalSandbox) and self.launcher.looks_inside:
            # Behind its guest, which has to answer on the way: to ask it first tells no more.
            item.need_active()
        else:
            await item.check()
        if isinstance(item, LocalSandbox):
            await self.launcher.check(item)

    async def reset(self, item: Sandbox) -> None:
        """Give a sandbox a new inside under its old id; called when a lease ends.

        Nothing of the last tenant can be left, because nothing is kept.
        """
        item.update_status(SandboxStatus.INITIALIZING)
        self.resetting.append(item.id)
        try:
            await item.renew()
            await self._admit(item)
        finally:
            self.resetting.remove(item.id)

    async def destroy(self, item: Sandbox) -> None:
        """End a sandbox, and forget it unless somebody wants to keep its record."""
        await end(item)
        # A sandbox that was stopped by its id is no member any more: its record stays.
        if self._registry.is_member(item):
            self._registry.remove(item.id)

    async def _clear(self, sandbox: Sandbox) -> None:
        try:
            with anyio.move_on_after(_CLEANUP_BOUND, shield=True):
                await end(sandbox)
        except SandpoolError:
            _log.exception("what is left of sandbox %s could not be removed", sandbox.id)
        finally:
            if self._registry.is_member(sandbox):
                self._registry.remove(sandbox.id)

    async def _admit(self, sandbox: Sandbox) -> None:
        if isinstance(sandbox, LocalSandbox):
            # Its guest has answered a moment ago, or there would be no box.
            await self.launcher.launch(sandbox, lambda: self._note_end(sandbox))
        else:
            await sandbox.check()
        self._registry.check_present(sandbox)
        if isinstance(sandbox, LocalSandbox):
            sandbox.need_box().on_death(lambda _: self.on_death(sandbox))
        sandbox.update_status(SandboxStatus.IDLE)

    def _note_end(self, sandbox: LocalSandbox) -> None:
        """Be told that a sandbox's server has ended by itself."""
        if sandbox.entrypoint is not None and sandbox.entrypoint.epitaph is not None:
            sandbox.metadata["error"] = f"its server {sandbox.entrypoint.epitaph}"
        if sandbox.status is SandboxStatus.IDLE:
            # A tenant keeps what it has: its files are there, whatever has become of the server.
            sandbox.update_status(SandboxStatus.ERROR)
        self.on_death(sandbox)


async def end(sandbox: Sandbox) -> None:
    """Stop a sandbox and remove what is left of it, even if stopping it failed."""
    try:
        await sandbox.stop()
    except SandpoolError:
        await sandbox.cleanup()
        raise
    await sandbox.cleanup()
