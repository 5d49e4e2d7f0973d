"""The background work of a manager, on whichever event loop is running.

A manager may be started on one event loop, used on a second and stopped on a third, the earlier ones
closed by then.  So nothing here outlives its loop: there is one task per loop, made when the manager
is first used there, and in it a task group with every body of work.  When the loop ends, it cancels
the task; on the next loop the same bodies are started again.

    R1  At most one task is alive.
    R2  Every body in `_bodies` runs in the living task, or is about to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup, TaskStatus

Body = Callable[..., Awaitable[None]]
"""Called with `task_status=`, and runs until it is cancelled."""

_log = logging.getLogger(__name__)

_CLOSE_BOUND = 30.0
"""Seconds that cancelled bodies have to clean up."""


class Runtime:
    """One owned task with a task group in it."""

    def __init__(self) -> None:
        """Know no loop yet."""
        self._bodies: dict[str, Body] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._ready = anyio.Event()

    async def ensure(self) -> None:
        """Have the background work going on the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._task is not None and not self._task.done():
            if not self._ready.is_set():
                await self._ready.wait()
            return
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError("this manager is in use on another event loop that is still running")
        # Invariant R1: an earlier task was cancelled by its loop, or died with it.
        self._loop = loop
        self._group = None
        self._ready = anyio.Event()
        self._task = loop.create_task(self._run(self._ready), name="sandpool-manager")
        await self._ready.wait()

    async def add(self, name: str, body: Body) -> None:
        """Run `body` from now on; returns once it has called `task_status.started()`."""
        self._bodies[name] = body
        await self.ensure()
        if name not in self._scopes and self._group is not None:
            await self._start(self._group, name, body)

    def remove(self, name: str) -> None:
        """Cancel a body, if it runs, and forget it."""
        self._bodies.pop(name, None)
        scope = self._scopes.get(name)
        if scope is not None:
            scope.cancel()

    async def aclose(self) -> None:
        """Cancel everything and wait for its end, up to a bound."""
        self._bodies.clear()
        task, self._task = self._task, None
        loop, self._loop = self._loop, None
        if task is None or loop is not asyncio.get_running_loop():
            return
        task.cancel()
        _, late = await asyncio.wait([task], timeout=_CLOSE_BOUND)
        if late:
            _log.error("background work did not end within %s s", _CLOSE_BOUND)

    async def _run(self, ready: anyio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                for name, body in list(self._bodies.items()):
                    await self._start(group, name, body)
                self._group = group
                ready.set()
                await anyio.sleep_forever()
        finally:
            self._scopes.clear()
            ready.set()

    async def _start(self, group: TaskGroup, name: str, body: Body) -> None:
        self._scopes[name] = anyio.CancelScope()
        await group.start(self._guard, name, body)

    async def _guard(self, name: str, body: Body, *, task_status: TaskStatus[object]) -> None:
        """Run one body so that its failure is logged and ends nothing else."""
        try:
            with self._scopes[name]:
                await body(task_status=task_status)
        except Exception:  # one boundary per task
            _log.exception("%s stopped working", name)
        finally:
            self._scopes.pop(name, None)
