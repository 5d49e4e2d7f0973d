"""The files of a sandbox: read, written, removed and listed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentTarget
from sandpool.models import DirEntry

router = APIRouter(prefix="/files", route_class=Route)

FilePath = Annotated[str, Query(min_length=1, max_length=4096, description="A path inside.")]

_BYTES = "application/octet-stream"


@router.get("")
async def read_file(path: FilePath, target: CurrentTarget) -> StreamingResponse:
    """Return a file's bytes."""
    sandbox = await target.namespace.need_running(target.record)
    pieces = sandbox.files.stream(path)
    # The first piece is read before the answer begins: until then an error has a status.
    first = await anext(pieces, b"")
    return StreamingResponse(_chain(first, pieces), media_type=_BYTES)


@router.put("")
async def write_file(path: FilePath, target: CurrentTarget, request: Request) -> dict[str, Any]:
    """Write the body to a file, whole or not at all."""
    sandbox = await target.namespace.need_running(target.record)
    return {"path": path, "size": await sandbox.files.write(path, request.stream())}


@router.delete("")
async def delete_file(path: FilePath, target: CurrentTarget) -> dict[str, str]:
    """Remove a file."""
    sandbox = await target.namespace.need_running(target.record)
    await sandbox.files.remove(path)
    return {"path": path}


@router.get("/list")
async def list_directory(path: FilePath, target: CurrentTarget) -> dict[str, Any]:
    """List a directory."""
    sandbox = await target.namespace.need_running(target.record)
    entries = await sandbox.files.list(path)
    return {"path": path, "entries": [_entry(entry) for entry in entries]}


def _entry(entry: DirEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "is_dir": entry.type == "directory",
        "size": entry.size,
        "modified_at": round(entry.mtime * 1000),
    }


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece
