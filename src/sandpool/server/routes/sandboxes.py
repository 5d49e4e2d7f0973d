"""Sandboxes by id: made, listed, described, stopped and deleted; their tools and archives."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from sandpool.errors import SandboxNotFound
from sandpool.models import SandboxInfo, SandboxStatus, ToolResult
from sandpool.server.context import CurrentSandbox, CurrentTenant, SandboxId
from sandpool.server.departure import undo_if_unheard
from sandpool.server.tenants import Tenant
from sandpool.wire import problems
from sandpool.wire.requests import Extension, NewSandbox, SandboxPage, ToolCall

router = APIRouter(prefix="/v1", tags=["sandboxes"], responses=problems.RESPONSES)

_LARGEST_PAGE = 1_000


@router.post("/sandboxes", status_code=201)
async def create_sandbox(
    tenant: CurrentTenant, request: Request, response: Response, body: NewSandbox | None = None
) -> SandboxInfo:
    """Make and start a sandbox that belongs to no pool."""
    wanted = body or NewSandbox()
    sandbox_id = await tenant.manager.create_sandbox(wanted.type, wanted.config, wanted.id)
    undo_if_unheard(request, lambda: tenant.manager.delete_sandbox(sandbox_id))
    response.headers["Location"] = f"/v1/sandboxes/{sandbox_id}"
    return await _describe(tenant, sandbox_id)


@router.get("/sandboxes")
async def list_sandboxes(
    tenant: CurrentTenant,
    status: SandboxStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = _LARGEST_PAGE,
    cursor: Annotated[str | None, Query(max_length=128)] = None,
) -> SandboxPage:
    """Describe the sandboxes, in the order of their making, a page at a time."""
    found = await tenant.manager.list_sandboxes(status)
    return page(found, limit=limit, cursor=cursor)


@router.get("/sandboxes/{sandbox_id}")
async def read_sandbox(sandbox_id: SandboxId, tenant: CurrentTenant) -> SandboxInfo:
    """Describe one sandbox."""
    return await _describe(tenant, sandbox_id)


@router.post("/sandboxes/{sandbox_id}/stop", status_code=204)
async def stop_sandbox(sandbox_id: SandboxId, tenant: CurrentTenant) -> None:
    """End its processes and keep its record."""
    if not await tenant.manager.stop_sandbox(sandbox_id):
        raise _missing(sandbox_id)


@router.post("/sandboxes/{sandbox_id}/extend", status_code=204)
async def extend_sandbox(sandbox_id: SandboxId, body: Extension, tenant: CurrentTenant) -> None:
    """Let a claimed sandbox end so many seconds from now, or with its own life if sooner."""
    await tenant.manager.extend_sandbox(sandbox_id, body.lifetime)


@router.delete("/sandboxes/{sandbox_id}", status_code=204)
async def delete_sandbox(sandbox_id: SandboxId, tenant: CurrentTenant) -> None:
    """End it and forget it."""
    if not await tenant.manager.delete_sandbox(sandbox_id):
        raise _missing(sandbox_id)


@router.post("/sandboxes/{sandbox_id}/ping", status_code=204)
async def ping(sandbox: CurrentSandbox) -> None:
    """Answer once the sandbox's guest has."""
    await sandbox.ping()


@router.get("/sandboxes/{sandbox_id}/tools")
async def read_tools(sandbox_id: SandboxId, tenant: CurrentTenant) -> dict[str, Any]:
    """Return the function schema of each of its tools."""
    return await tenant.manager.get_sandbox_tools(sandbox_id)


@router.get("/sandboxes/{sandbox_id}/logs", response_class=PlainTextResponse)
async def read_logs(sandbox_id: SandboxId, tenant: CurrentTenant) -> PlainTextResponse:
    """Return the last 16 KiB of what the entrypoint of its pool has said."""
    said = await tenant.manager.get_sandbox_logs(sandbox_id)
    # A tenant has written it: no browser is to take it for a page.
    return PlainTextResponse(said, headers={"X-Content-Type-Options": "nosniff"})


@router.post("/sandboxes/{sandbox_id}/tools/{tool}")
async def execute_tool(
    sandbox_id: SandboxId, tool: str, tenant: CurrentTenant, body: ToolCall | None = None
) -> ToolResult:
    """Run one tool in it."""
    return await tenant.manager.execute_tool(sandbox_id, tool, (body or ToolCall()).parameters)


@router.put(
    "/sandboxes/{sandbox_id}/archive",
    status_code=204,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_archive(
    sandbox_id: SandboxId,
    tenant: CurrentTenant,
    request: Request,
    target_dir: Annotated[str, Query(description="Made if it is absent.", max_length=4096)],
) -> None:
    """Unpack a tar archive: all of it, or nothing if any member is refused."""
    await tenant.manager.put_archive(sandbox_id, target_dir, await request.body())


@router.post("/cleanup", status_code=204)
async def clean_up(tenant: CurrentTenant) -> None:
    """Delete every pool and sandbox of the caller's namespace."""
    await tenant.manager.cleanup_all_sandboxes()


def page(found: list[SandboxInfo], *, limit: int, cursor: str | None) -> SandboxPage:
    """Return one page: up to `limit` of those that come after `cursor`.

    A cursor is the place of a page's last sandbox in the order of making, so the sandbox itself may
    be gone when the next page is asked for.
    """
    ordered = sorted(found, key=_place)
    rest = [info for info in ordered if cursor is None or _place(info) > cursor]
    items = rest[:limit]
    return SandboxPage(items=items, next_cursor=_place(items[-1]) if len(rest) > limit else None)


def _place(info: SandboxInfo) -> str:
    return f"{info.created_at.timestamp():017.6f}-{info.id}"


async def _describe(tenant: Tenant, sandbox_id: str) -> SandboxInfo:
    info = await tenant.manager.get_sandbox_info(sandbox_id)
    if info is None:
        raise _missing(sandbox_id)
    return info


def _missing(sandbox_id: str) -> SandboxNotFound:
    return SandboxNotFound(f"Sandbox {sandbox_id} not found")
