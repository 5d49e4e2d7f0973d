"""`sandpool deploy`, `check` and `claim`: pools of services, from their definitions to a URL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sandpool.cli import exits
from sandpool.cli.filling import shown
from sandpool.cli.output import print_json, print_table, printable
from sandpool.client import HttpSandboxManager
from sandpool.definitions import read_definitions
from sandpool.deployment import deploy
from sandpool.errors import InvalidSpec
from sandpool.models import PoolInfo, SandboxReference


async def deploy_file(
    manager: HttpSandboxManager, path: Path, *, timeout: float | None, as_json: bool
) -> int:
    """Have every pool of a file as it is defined there, and full."""
    for spec in read_definitions(path):
        info = await shown(manager, spec, partial(deploy, manager, spec, timeout=timeout))
        if as_json:
            print_json(info.model_dump(mode="json"))
        else:
            print(f"pool {info.name}: {info.ready} of {spec.warm} ready")
    return exits.OK


async def check(
    manager: HttpSandboxManager, name: str | None, *, check_health: bool, as_json: bool
) -> int:
    """Print what is ready in a pool, taking nothing; whether all of it is as it should be."""
    info = await _pool(manager, name)
    entries = await manager.check_pool(info.name, check_health=check_health)
    is_good = len(entries) >= info.spec.warm and not any(entry.fault for entry in entries)
    if as_json:
        print_json(_as_json(info, entries))
    else:
        _print_entries(info, entries)
    return exits.OK if is_good else exits.FAILED


async def claim(
    manager: HttpSandboxManager,
    name: str,
    *,
    check_health: bool | None,
    min_remaining: float | None,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Take a sandbox for good and print its URL, and nothing else, on standard output."""
    ports = (await manager.get_pool(name)).spec.ports
    if not ports:
        raise InvalidSpec(f"the sandboxes of pool {name} have no ports, and so no URL")
    sandbox = await manager.claim(
        name, check_health=check_health, min_remaining=min_remaining, timeout=timeout
    )
    url = await sandbox.url(ports[0])
    if as_json:
        found = {"expires_at": sandbox.expires_at, "remaining": sandbox.remaining}
        print_json({"id": sandbox.id, "url": url, **found})
    else:
        print(url)
    return exits.OK


async def _pool(manager: HttpSandboxManager, name: str | None) -> PoolInfo:
    if name is not None:
        return await manager.get_pool(name)
    found = await manager.list_pools()
    if len(found) != 1:
        known = ", ".join(info.name for info in found) or "none"
        raise InvalidSpec(f"say which pool; there are {len(found)}: {known}")
    return found[0]


def _as_json(info: PoolInfo, entries: Sequence[SandboxReference]) -> dict[str, object]:
    return {
        "pool": info.name,
        "state": info.state,
        "warm": info.spec.warm,
        "ready": len(entries),
        "last_error": info.last_error,
        "sandboxes": [entry.model_dump(mode="json") for entry in entries],
    }


def _print_entries(info: PoolInfo, entries: Sequence[SandboxReference]) -> None:
    print(f"pool {info.name}: {len(entries)} of {info.spec.warm} ready, {info.state}")
    if entries:
        print_table(
            ("id", "url", "expires", "seconds left", "health"),
            (
                (
                    entry.id,
                    entry.url,
                    _moment(entry.expires_at),
                    _seconds(entry.remaining),
                    _health(entry),
                )
                for entry in entries
            ),
        )
    if info.last_error is not None:
        print(f"last error: {printable(info.last_error)}")


def _moment(expires_at: float | None) -> str:
    if expires_at is None:
        return "never"
    return datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")


def _seconds(remaining: float | None) -> str:
    if remaining is None:
        return "-"
    return "expired" if remaining <= 0 else f"{remaining:.0f}"


def _health(entry: SandboxReference) -> str:
    if entry.healthy is None:
        return "not looked at"
    return "good" if entry.healthy else f"bad: {entry.fault}"
