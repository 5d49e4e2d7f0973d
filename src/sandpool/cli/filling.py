"""Shows how far a pool is while it fills: on standard error, and where that is a terminal.

A pool's image may have to be pulled first; then each of its sandboxes is made, and started.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sandpool.cli.output import printable
from sandpool.errors import PoolNotFound, SandpoolError
from sandpool.models import ImagePull, PoolInfo, PoolSpec
from sandpool.service import SandboxService

_INTERVAL = 0.2

T = TypeVar("T")


class Stage(NamedTuple):
    """One bar."""

    name: str
    done: int = 0
    total: int | None = None
    """None: nobody knows."""
    told: str = ""
    """How much that is, for people."""


async def shown(manager: SandboxService, spec: PoolSpec, call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` does, which fills a pool, and show its stages until then."""
    if not sys.stderr.isatty():
        return await call()
    before = await _failures(manager, spec.name)
    failure: SandpoolError | None = None
    found: list[T] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, manager, spec, before)
        try:
            found.append(await call())
        except SandpoolError as error:  # to be raised by itself, and not as one of a group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return found[0]


def stages(spec: PoolSpec, info: PoolInfo | None, pull: ImagePull | None) -> list[Stage]:
    """Return what there is to show of a pool that fills; no `info`: it is not there yet."""
    found: list[Stage] = []
    if pull is not None:
        total = pull.bytes_total or None
        found.append(Stage("pull", pull.bytes_done, total, str(pull)))
    elif info is None:
        found.append(Stage(f"preparing {printable(spec.image)}"))
    if info is not None:
        made = min(info.ready + info.starting, spec.warm)
        ready = min(info.ready, spec.warm)
        found.append(Stage("create", made, spec.warm, f"{made} of {spec.warm}"))
        found.append(Stage("start", ready, spec.warm, f"{ready} of {spec.warm} ready"))
    return found


def failures(name: str, before: int, info: PoolInfo) -> str | None:
    """Return what is to be said of the sandboxes that could not be made since `before`."""
    count = info.create_failures - before
    if count <= 0:
        return None
    what = "a sandbox" if count == 1 else f"{count} sandboxes"
    return f"pool {name}: {what} could not be made: {printable(info.last_error or 'unknown')}"


async def _failures(manager: SandboxService, name: str) -> int:
    """Return how many there were before: they are no news."""
    try:
        return (await manager.get_pool(name)).create_failures
    except PoolNotFound:
        return 0


async def _watch(manager: SandboxService, spec: PoolSpec, before: int) -> None:
    """Show bars until cancelled, and leave behind what failed."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        _show(bars, tasks, spec.name, stages(spec, None, None))
        while True:
            try:
                info, pull = await _look(manager, spec)
            except SandpoolError:
                pass  # whoever fills the pool is told what is wrong
            else:
                _show(bars, tasks, spec.name, stages(spec, info, pull))
                news = None if info is None else failures(spec.name, before, info)
                if info is not None and news is not None:
                    before = info.create_failures
                    console.print(news, markup=False, highlight=False, soft_wrap=True)
            await anyio.sleep(_INTERVAL)


async def _look(
    manager: SandboxService, spec: PoolSpec
) -> tuple[PoolInfo | None, ImagePull | None]:
    try:
        info = await manager.get_pool(spec.name)
    except PoolNotFound:
        info = None
    images = await manager.list_images()
    return info, next((image.pull for image in images if image.name == spec.image), None)


def _show(bars: Progress, tasks: dict[str, TaskID], pool: str, found: Sequence[Stage]) -> None:
    """Bring the bars to what there is to show."""
    for name in tasks.keys() - {stage.name for stage in found}:
        bars.remove_task(tasks.pop(name))
    for stage in found:
        if stage.name not in tasks:
            text = f"pool {pool}: {stage.name}"
            tasks[stage.name] = bars.add_task(text, total=stage.total, told=stage.told)
        task = tasks[stage.name]
        bars.update(task, completed=stage.done, total=stage.total, told=stage.told)
