"""Removes containers of sandpool's that nobody alive owns, and those of an owner that ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio

from sandpool.backends.docker import owners
from sandpool.backends.docker.engine import Engine
from sandpool.backends.docker.keeper import remove_container, state_of
from sandpool.errors import BackendUnavailable, DestroyFailed

_log = logging.getLogger(__name__)

_LOOK_TIMEOUT = 10.0
_AT_ONCE = 8


async def reap(address: str | None = None) -> list[str]:
    """Remove what managers that are gone have left on an engine; return the containers' ids.

    `address` is by default what DOCKER_HOST says.  Raises `BackendUnavailable`.
    """
    engine = Engine(address)
    await engine.open()
    return await remove_orphans(engine, owners.this_process())


async def remove_all_of(engine: Engine, owner: owners.Owner) -> None:
    """Remove what we have lost track of: containers whose making was never answered."""
    try:
        for found in await _list(engine, f"{owners.OWNER}={owner.name}"):
            await remove_container(engine, found["Id"])
    except (BackendUnavailable, DestroyFailed):
        _log.warning("containers may be left behind; the next start removes them", exc_info=True)


async def remove_orphans(engine: Engine, asking: owners.Owner) -> list[str]:
    """Remove every container of sandpool's that no living process owns; return their ids."""
    now = datetime.now(UTC)
    orphans = [
        found["Id"]
        for found in await _list(engine, owners.OWNER)
        if await _is_orphan(engine, found, asking, now)
    ]
    removed: list[str] = []
    at_once = anyio.CapacityLimiter(_AT_ONCE)
    async with anyio.create_task_group() as group:
        for orphan in orphans:
            group.start_soon(_remove_one, engine, orphan, removed, at_once)
    if removed:
        _log.info("removed %d containers of managers that are gone", len(removed))
    return removed


async def _remove_one(
    engine: Engine, orphan: str, removed: list[str], at_once: anyio.CapacityLimiter
) -> None:
    try:
        async with at_once:
            await remove_container(engine, orphan)
        removed.append(orphan)
    except (BackendUnavailable, DestroyFailed):
        _log.warning("container %s of a manager that is gone stays", orphan[:12], exc_info=True)


async def _is_orphan(
    engine: Engine, found: Mapping[str, Any], asking: owners.Owner, now: datetime
) -> bool:
    owner = owners.read_owner(found.get("Labels") or {})
    if owner is None:
        return False
    ended_for: float | None = None
    if found.get("State") in ("exited", "dead"):
        answer = await engine.request(
            "GET", f"/containers/{found['Id']}/json", timeout=_LOOK_TIMEOUT
        )
        if answer.is_ok:
            ended_for = owners.seconds_since(str(state_of(answer).get("FinishedAt")), now)
    return owners.is_orphan(owner, asking, ended_for=ended_for)


async def _list(engine: Engine, label: str) -> list[Mapping[str, Any]]:
    filters = f'{{"label": ["{label}"]}}'
    answer = await engine.request(
        "GET", "/containers/json", query={"all": "1", "filters": filters}, timeout=_LOOK_TIMEOUT
    )
    if not answer.is_ok:
        raise BackendUnavailable(f"the Docker Engine lists no containers: {answer.message}")
    return answer.rows()
