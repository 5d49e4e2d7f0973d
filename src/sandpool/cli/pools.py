"""`sandpool pool`: a server's pools, made, shown, changed and watched."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import anyio
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sandpool.cli import exits
from sandpool.cli.filling import shown
from sandpool.cli.output import format_table, milliseconds, print_json, print_table, printable
from sandpool.errors import InvalidSpec
from sandpool.manager.recipe import invalid
from sandpool.models import PoolInfo, PoolSpec, Quantiles
from sandpool.service import SandboxService

_COLUMNS = ("pool", "state", "image", "backend", "ready", "warm", "leased", "max", "waiting")
_TOP = (
    *("pool", "state", "ready", "coming", "leased", "waiting", "hits"),
    *("wait p50", "wait p99", "made p50", "made p99", "failures"),
)


async def show_all(manager: SandboxService, *, as_json: bool) -> int:
    """Print all pools."""
    found = await manager.list_pools()
    if as_json:
        print_json([info.model_dump(mode="json") for info in found])
    else:
        print_table(_COLUMNS, map(_row, found))
    return exits.OK


async def show(manager: SandboxService, name: str, *, as_json: bool) -> int:
    """Print one pool with its definition, the defaults left out."""
    info = await manager.get_pool(name)
    if as_json:
        print_json(info.model_dump(mode="json"))
        return exits.OK
    print_table(_COLUMNS, [_row(info)])
    print()
    fields = info.spec.model_dump(mode="json", exclude_defaults=True)
    for field, value in fields.items():
        if field != "name":
            print(f"{field} = {json.dumps(value)}")
    if info.last_error is not None:
        print(f"\nlast error: {printable(info.last_error)}")
    return exits.OK


async def create(manager: SandboxService, fields: Mapping[str, Any], *, wait: bool) -> int:
    """Make a pool from the fields that are given, and with `wait` fill it."""
    spec = _spec(fields)

    async def make() -> None:
        await manager.create_pool(spec)
        if wait:
            await manager.wait_pool_warm(spec.name)

    await shown(manager, spec, make)
    print(spec.name)
    return exits.OK


async def update(manager: SandboxService, name: str, changes: Mapping[str, Any]) -> int:
    """Change the fields that are given, and keep the rest."""
    if not changes:
        raise InvalidSpec("say what is to change, such as --warm 8")
    old = (await manager.get_pool(name)).spec.model_dump(exclude_unset=True)
    info = await manager.update_pool(name, _spec({**old, **changes}))
    print(info.name)
    return exits.OK


async def delete(manager: SandboxService, names: list[str], *, force: bool) -> int:
    """Remove pools."""
    return await exits.each(names, lambda name: manager.delete_pool(name, force=force))


async def top(
    manager: SandboxService, name: str | None, *, interval: float, rounds: int | None
) -> int:
    """Show what pools do, again and again, until interrupted or for so many rounds.

    On a terminal it is one table that changes; elsewhere each round is printed below the last.
    """
    if not sys.stdout.isatty():
        left = rounds
        while left is None or left > 0:
            print(_view(await _pools(manager, name)), flush=True)
            left = None if left is None else left - 1
            if left != 0:
                await anyio.sleep(interval)
        return exits.OK
    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        count = 0
        while rounds is None or count < rounds:
            live.update(Text(_view(await _pools(manager, name))), refresh=True)
            count += 1
            await anyio.sleep(interval)
    return exits.OK


async def _pools(manager: SandboxService, name: str | None) -> list[PoolInfo]:
    return await manager.list_pools() if name is None else [await manager.get_pool(name)]


def _view(pools: list[PoolInfo]) -> str:
    lines = [format_table(_TOP, map(_top_row, pools))]
    lines += [
        f"{info.name}: {printable(info.last_error)}"
        for info in pools
        if info.last_error is not None
    ]
    return "\n".join(lines)


def _row(info: PoolInfo) -> tuple[object, ...]:
    spec = info.spec
    counts = (info.ready, spec.warm, info.leased, spec.max, info.waiting)
    return (info.name, info.state, spec.image, info.backend, *counts)


def _top_row(info: PoolInfo) -> tuple[object, ...]:
    return (
        info.name,
        info.state,
        f"{info.ready}/{info.spec.warm}",
        info.creating + info.resetting,
        f"{info.leased}/{info.spec.max}",
        info.waiting,
        _share(info.hits, info.hits + info.misses),
        *_spans(info.waits),
        *_spans(info.creations),
        info.create_failures,
    )


def _share(part: int, whole: int) -> str | None:
    return None if whole == 0 else f"{part / whole:.1%}"


def _spans(found: Quantiles | None) -> tuple[str | None, str | None]:
    if found is None:
        return None, None
    return milliseconds(found.p50), milliseconds(found.p99)


def _spec(fields: Mapping[str, Any]) -> PoolSpec:
    try:
        return PoolSpec.model_validate(fields)
    except ValidationError as error:
        raise invalid("pool", error) from None
