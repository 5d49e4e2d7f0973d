"""What a sandbox says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentDialect, CurrentTarget

router = APIRouter(route_class=Route)


@router.get("/health")
async def read_health(target: CurrentTarget) -> dict[str, bool]:
    """Answer once the sandbox's guest has."""
    sandbox = await target.namespace.need_running(target.record)
    await sandbox.ping()
    return {"healthy": True}


@router.get("/info")
async def read_info(target: CurrentTarget, dialect: CurrentDialect) -> dict[str, Any]:
    """Tell how long it has been there, and how many processes it has."""
    processes = target.record.processes
    age = dialect.clock.utc() - target.record.created_at
    return {
        "version": version("sandpool"),
        "uptime_secs": max(0, int(age.total_seconds())),
        "running_processes": len(processes.running()),
        "total_processes": len(processes.all()),
    }
