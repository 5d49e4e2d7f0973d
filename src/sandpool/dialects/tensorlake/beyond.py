"""What this interface has and sandboxes here have not: refused by name, never half done."""

from __future__ import annotations

from fastapi import APIRouter

from sandpool.dialects.tensorlake.answers import Route
from sandpool.errors import Unsupported

router = APIRouter(route_class=Route)

_SNAPSHOTS = "a sandbox here is processes of this machine, of which no snapshot can be made"
_COPY = "a running sandbox here cannot be copied; claim another one from its pool"
_LOGS = "no logs are kept; read the output of a process while the sandbox is there"
_FILE_SYSTEMS = "a sandbox here has no file systems but its own"


@router.post("/sandboxes/{sandbox_id}/snapshot")
@router.get("/sandboxes/{sandbox_id}/snapshots")
@router.get("/snapshots")
@router.get("/snapshots/{snapshot_id}")
@router.delete("/snapshots/{snapshot_id}")
async def refuse_snapshot() -> None:
    """Refuse."""
    raise Unsupported(_SNAPSHOTS)


@router.post("/sandboxes/{sandbox_id}/copy")
async def refuse_copy() -> None:
    """Refuse."""
    raise Unsupported(_COPY)


@router.get("/sandboxes/{sandbox_id}/logs")
@router.get("/sandboxes/{sandbox_id}/processes")
async def refuse_logs() -> None:
    """Refuse."""
    raise Unsupported(_LOGS)


@router.post("/sandboxes/{sandbox_id}/file_systems")
@router.delete("/sandboxes/{sandbox_id}/file_systems")
async def refuse_file_systems() -> None:
    """Refuse."""
    raise Unsupported(_FILE_SYSTEMS)
