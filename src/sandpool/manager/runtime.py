"""The background work of a manager, on whichever event loop is running.

A manager may be started on one event loop, used on a second and stopped on a third, the earlier
ones closed by then.  So nothing here outlives its loop: there is one task per loop, made when the
manager is first used there, and in it a task group with every body of work.  When the loop ends, it
cancels the task; on the next loop the same bodies are started again.

    R1  At most one task is alive.
    R2  Every body in `_bodies` runs in the living task, or is about to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

Body = Callable[..., Awaitable[None]]
"""Called with `task_status=`, and runs until it is cancelled."""

_log = logging.getLogger(__name__)

_CLOSE_BOUND = 30.0
"""Seconds that cancelled bodies have to clean up."""


@dataclass(slots=True, eq=False)
class _Job:
    """One body on the present loop.  It is also the body's `task_status`."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    has_begun: anyio.Event = field(default_factory=anyio.Event)
    """Set once the body has called `started()`, or has ended without."""

    def started(self, value: object = None) -> None:
        """Be told by the body that it is ready."""
        self.has_begun.set()


class Runtime:
    """One owned task with a task group in it."""

    def __init__(self) -> None:
        """Know no loop yet."""
        self._bodies: dict[str, Body] = {}
        self._jobs: dict[str, _Job] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._ready = anyio.Event()

    @property
    def is_here(self) -> bool:
        """Whether the background work is going on the running loop."""
        task = self._task
        return task is not None and not task.done() and self._loop is asyncio.get_running_loop()

    async def ensure(self) -> None:
        """Have the background work going on the running loop."""
        if self.is_here:
            if not self._ready.is_set():
                await self._ready.wait()
            return
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError("this manager is in use on another event loop that is still running")
        # Invariant R1: an earlier task was cancelled by its loop, or died with it.
        self._loop = loop
        self._group = None
        self._jobs.clear()
        self._ready = anyio.Event()
        self._task = loop.create_task(self._run(self._ready), name="sandpool-manager")
        await self._ready.wait()

    async def add(self, name: str, body: Body) -> None:
        """Run `body` from now on; returns once it has called `task_status.started()`.

        Cancelled, it leaves the body running; `remove` ends it.
        """
        self._bodies[name] = body
        await self.ensure()
        job = self._jobs.get(name)
        if job is None and self._group is not None:
            job = self._start(self._group, name, body)
        if job is not None:
            await job.has_begun.wait()

    def remove(self, name: str) -> None:
        """Cancel a body, if it runs, and forget it."""
        self._bodies.pop(name, None)
        job = self._jobs.get(name)
        if job is not None:
            job.scope.cancel()

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
                jobs = [self._start(group, name, body) for name, body in self._bodies.items()]
                for job in jobs:
                    await job.has_begun.wait()
                self._group = group
                ready.set()
                await anyio.sleep_forever()
        finally:
            self._group = None
            ready.set()

    def _start(self, group: TaskGroup, name: str, body: Body) -> _Job:
        job = self._jobs[name] = _Job()
        group.start_soon(self._guard, name, body, job)
        return job

    async def _guard(self, name: str, body: Body, job: _Job) -> None:
        """Run one body so that its failure is logged and ends nothing else."""
        try:
            with job.scope:
                await body(task_status=job)
        except Exception:  # noqa: BLE001 - the one boundary of this task
            _log.exception("%s stopped working", name)
        finally:
            job.has_begun.set()
            if self._jobs.get(name) is job:
                del self._jobs[name]
