"""`TensorlakeDialect`: the namespaces of one server, the tasks that they need, and its two faces.

The control plane is a router that the server mounts, by namespace and flat.  The data plane is an
application of its own: which sandbox a request is for is told by its host or by a header, so a
dispatcher in front of everything else decides, and leaves the sandbox's id in the scope.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from starlette.requests import HTTPConnection

from sandpool.clock import Clock, MonotonicClock
from sandpool.dialects.tensorlake.home import FindHome, UndoIfUnheard
from sandpool.dialects.tensorlake.namespace import Namespace
from sandpool.dialects.tensorlake.record import Record
from sandpool.dialects.tensorlake.settings import DialectSettings
from sandpool.errors import ManagerNotStarted, SandboxNotFound

_log = logging.getLogger(__name__)

SANDBOX = "sandpool.tensorlake.sandbox"
"""Where in a scope the dispatcher leaves the sandbox that a request is for."""

_TEND_EVERY = 1.0
"""Seconds.  How late a sandbox may be suspended, or found to have died."""


def _ignore(_connection: HTTPConnection, _undo: Callable[[], Awaitable[object]]) -> None:
    """Do nothing; stands in where nobody watches the clients."""


class TensorlakeDialect:
    """All that is kept for the clients of this dialect."""

    def __init__(
        self,
        find_home: FindHome,
        *,
        settings: DialectSettings | None = None,
        undo_if_unheard: UndoIfUnheard = _ignore,
        clock: Clock | None = None,
    ) -> None:
        """Describe it; `run` must be going while requests are served.

        Args:
            find_home: Finds the manager that a request is for.
            settings: What the operator decided.
            undo_if_unheard: Has what a client did not hear of taken back.
            clock: What time is.
        """
        self.settings = settings if settings is not None else DialectSettings()
        self.clock: Clock = clock if clock is not None else MonotonicClock()
        self.undo_if_unheard = undo_if_unheard
        self._find_home = find_home
        self._namespaces: dict[str, Namespace] = {}
        self._group: TaskGroup | None = None

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Do in the background what has to be done, for the length of an `async with` block."""
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._tend)
            try:
                yield
            finally:
                self._group = None
                group.cancel_scope.cancel()

    async def find_namespace(self, connection: HTTPConnection, name: str | None) -> Namespace:
        """Return the namespace that a request speaks of; None: its key's own."""
        home = await self._find_home(connection, name)
        found = self._namespaces.get(home.namespace)
        if found is None:
            found = Namespace(home, self.settings, clock=self.clock, spawn=self.spawn)
            self._namespaces[home.namespace] = found
        return found

    async def find_sandbox(self, connection: HTTPConnection) -> tuple[Namespace, Record]:
        """Return the sandbox that a data-plane request is for; `SandboxNotFound`."""
        wanted: str = connection.scope[SANDBOX]
        own = await self.find_namespace(connection, None)
        try:
            return own, own.find(wanted)
        except SandboxNotFound:
            # An open server has many namespaces and no key that would say which one is meant.
            for other in list(self._namespaces.values()):
                if other is not own and other.has(wanted):
                    return await self._if_allowed(connection, other), other.find(wanted)
            raise

    async def _if_allowed(self, connection: HTTPConnection, namespace: Namespace) -> Namespace:
        return await self.find_namespace(connection, namespace.name)

    def spawn(self, job: Callable[[], Awaitable[object]]) -> None:
        """Start a task that goes on after its request; what it raises is logged."""
        if self._group is None:
            raise ManagerNotStarted("the server is stopping")
        self._group.start_soon(_guarded, job)

    async def _tend(self) -> None:
        while True:
            await self.clock.sleep(_TEND_EVERY)
            for namespace in self._namespaces.values():
                namespace.tend()


async def _guarded(job: Callable[[], Awaitable[object]]) -> None:
    try:
        await job()
    except Exception:  # noqa: BLE001 (one task's fault must not end the others)
        _log.exception("a task of the tensorlake dialect failed")
