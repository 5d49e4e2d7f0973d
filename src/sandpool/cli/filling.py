"""Shows how far a pool is while it fills: on standard error, and where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sandpool.cli.output import printable
from sandpool.errors import SandpoolError
from sandpool.models import PoolSpec
from sandpool.service import SandboxService

_INTERVAL = 0.2

T = TypeVar("T")


async def shown(manager: SandboxService, spec: PoolSpec, call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` does, which fills a pool, and show a bar until then."""
    if not sys.stderr.isatty():
        return await call()
    failure: SandpoolError | None = None
    found: list[T] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, manager, spec)
        try:
            found.append(await call())
        except SandpoolError as error:  # to be raised by itself, and not as one of a group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return found[0]


async def _watch(manager: SandboxService, spec: PoolSpec) -> None:
    """Show a bar until cancelled; before a pool is there, its image and template are prepared."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"pool {spec.name}: preparing {printable(spec.image)}", total=None)
        while True:
            try:
                info = await manager.get_pool(spec.name)
            except SandpoolError:
                pass  # not there yet; what is wrong with it, whoever makes it is told
            else:
                coming = f", {info.creating} on their way" if info.creating else ""
                text = f"pool {spec.name}: {info.ready} of {spec.warm} ready{coming}"
                bars.update(task, description=text, completed=info.ready, total=spec.warm)
            await anyio.sleep(_INTERVAL)
