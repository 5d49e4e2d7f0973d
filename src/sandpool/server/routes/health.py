"""Whether the server works, and what it is doing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request

from sandpool.server.context import CurrentTenant
from sandpool.wire import problems

_VERSION = version("sandpool")

router = APIRouter(tags=["server"], responses=problems.RESPONSES)


@router.get("/healthz")
async def read_health(request: Request) -> dict[str, Any]:
    """Say that the server answers; needs no key."""
    state = request.app.state
    return {
        "healthy": True,
        "version": _VERSION,
        "uptime": state.clock.now() - state.started_at,
    }


@router.get("/v1/stats")
async def read_stats(tenant: CurrentTenant) -> dict[str, Any]:
    """Count what the caller's namespace has."""
    stats = await tenant.manager.get_stats()
    return {**stats, "namespace": tenant.name, "leases": len(tenant.holdings)}
