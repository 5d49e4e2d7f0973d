"""The twelve routes of ms-enclave's server.

They are all that its clients know: paths, parameters and bodies are that interface's, and what it
leaves open is as in the native API.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from sandpool.dialects.enclave.answers import EnclaveRoute
from sandpool.dialects.enclave.call import Call, CurrentCall, FindService, UndoIfUnheard
from sandpool.dialects.enclave.containers import choose
from sandpool.errors import InvalidSpec, SandboxLeased, SandboxNotFound
from sandpool.models import (
    HealthCheckResult,
    SandboxInfo,
    SandboxStatus,
    SandboxType,
    ToolExecutionRequest,
    ToolResult,
)
from sandpool.service import SandboxService
from sandpool.wire import problems

_router = APIRouter(route_class=EnclaveRoute, tags=["enclave"], responses=problems.RESPONSES)

_BYTES = {"schema": {"type": "string", "format": "binary"}}

_Config = Annotated[dict[str, Any] | None, Body(description="The type's configuration.")]
_Size = Annotated[int | None, Query(le=100_000)]
_Wait = Annotated[float | None, Query(ge=0, le=86_400, description="Seconds to wait.")]


class Created(BaseModel):
    """The id of a new sandbox."""

    sandbox_id: str


class Message(BaseModel):
    """A sentence for people."""

    message: str


class Unpacked(BaseModel):
    """An archive that has been unpacked."""

    ok: bool


class PoolMembers(BaseModel):
    """The pool that `initialize_pool` has filled."""

    message: str
    pool_size: int
    sandbox_ids: list[str]


def create_router(
    find_service: FindService,
    *,
    uptime: Callable[[], float],
    undo_if_unheard: UndoIfUnheard,
    docker_as_native: bool = False,
) -> APIRouter:
    """Return the routes, over the service that `find_service` finds for each request.

    Args:
        find_service: A dependency that returns the sandboxes which a request may see.
        uptime: Says for how many seconds the server has been running.
        undo_if_unheard: Registers what takes back the effect of a request whose client leaves.
        docker_as_native: Whether requests for containers get native sandboxes.
    """
    found: Any = Depends(find_service)

    async def bind(connection: HTTPConnection, service: SandboxService = found) -> None:
        connection.state.enclave = Call(
            service, uptime(), docker_as_native, connection, undo_if_unheard
        )

    router = APIRouter(dependencies=[Depends(bind)])
    router.include_router(_router)
    return router


# The server.


@_router.get("/health")
async def health_check(call: CurrentCall) -> HealthCheckResult:
    """Say that the server works, and what it has."""
    stats = await call.service.get_stats()
    return HealthCheckResult(
        healthy=True,
        version=version("sandpool"),
        uptime=call.uptime,
        active_sandboxes=stats["total_sandboxes"],
        system_info=stats,
    )


@_router.get("/stats")
async def get_stats(call: CurrentCall) -> dict[str, Any]:
    """Count what the caller's namespace has."""
    return await call.service.get_stats()


# Sandboxes, by id.


@_router.post("/sandbox/create")
async def create_sandbox(
    call: CurrentCall,
    sandbox_type: SandboxType,
    sandbox_id: Annotated[str | None, Query(max_length=128)] = None,
    config: _Config = None,
) -> Created:
    """Make and start a sandbox."""
    kind, wanted = choose(sandbox_type, config, docker_as_native=call.docker_as_native)
    made = await call.service.create_sandbox(kind, wanted, sandbox_id)
    call.undo(lambda: call.service.delete_sandbox(made))
    return Created(sandbox_id=made)


@_router.get("/sandboxes")
async def list_sandboxes(
    call: CurrentCall, status: SandboxStatus | None = None
) -> list[SandboxInfo]:
    """Describe all sandboxes, or those with one status."""
    return await call.service.list_sandboxes(status)


@_router.get("/sandbox/{sandbox_id}")
async def get_sandbox_info(sandbox_id: str, call: CurrentCall) -> SandboxInfo:
    """Describe one sandbox."""
    info = await call.service.get_sandbox_info(sandbox_id)
    if info is None:
        raise _missing(sandbox_id)
    return info


@_router.post("/sandbox/{sandbox_id}/stop")
async def stop_sandbox(sandbox_id: str, call: CurrentCall) -> Message:
    """End a sandbox's processes and keep its record."""
    await _refuse_if_lent(call, sandbox_id)
    if not await call.service.stop_sandbox(sandbox_id):
        raise _missing(sandbox_id)
    return Message(message="Sandbox stopped successfully")


@_router.delete("/sandbox/{sandbox_id}")
async def delete_sandbox(sandbox_id: str, call: CurrentCall) -> Message:
    """End a sandbox and forget it; a pool makes another one in its place."""
    await _refuse_if_lent(call, sandbox_id)
    if not await call.service.delete_sandbox(sandbox_id):
        raise _missing(sandbox_id)
    return Message(message="Sandbox deleted successfully")


@_router.post("/sandbox/tool/execute")
async def execute_tool(wanted: ToolExecutionRequest, call: CurrentCall) -> ToolResult:
    """Run one tool in one sandbox."""
    parameters = dict(wanted.parameters)
    if wanted.timeout is not None:
        parameters.setdefault("timeout", wanted.timeout)
    return await call.service.execute_tool(wanted.sandbox_id, wanted.tool_name, parameters)


@_router.get("/sandbox/{sandbox_id}/tools")
async def get_sandbox_tools(sandbox_id: str, call: CurrentCall) -> dict[str, Any]:
    """Return the function schema of each of a sandbox's tools."""
    return await call.service.get_sandbox_tools(sandbox_id)


@_router.post(
    "/sandbox/{sandbox_id}/archive",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/x-tar": _BYTES, "application/octet-stream": _BYTES},
        }
    },
)
async def put_archive(
    sandbox_id: str, target_dir: str, request: Request, call: CurrentCall
) -> Unpacked:
    """Unpack the tar archive that is the request's body."""
    data = await request.body()
    if not data:
        raise InvalidSpec("Archive body must not be empty")
    return Unpacked(ok=await call.service.put_archive(sandbox_id, target_dir, data))


# The pool without a name.


@_router.post("/pool/initialize")
async def initialize_pool(
    call: CurrentCall,
    pool_size: _Size = None,
    sandbox_type: SandboxType = SandboxType.DOCKER,
    config: _Config = None,
) -> PoolMembers:
    """Warm the pool; an equal call leaves it as it is, for whoever makes it."""
    kind, wanted = choose(sandbox_type, config, docker_as_native=call.docker_as_native)
    ids = await call.service.initialize_pool(pool_size, kind, wanted)
    return PoolMembers(message="Pool initialized successfully", pool_size=len(ids), sandbox_ids=ids)


@_router.post("/pool/execute")
async def execute_tool_in_pool(
    tool_name: str,
    parameters: Annotated[dict[str, Any], Body(description="The tool's parameters.")],
    call: CurrentCall,
    timeout: _Wait = None,
) -> ToolResult:
    """Borrow a sandbox of the pool, run one tool in it, and give it back."""
    return await call.service.execute_tool_in_pool(tool_name, parameters, timeout)


async def _refuse_if_lent(call: Call, sandbox_id: str) -> None:
    """Keep a client that goes from ending another one's call.

    Clients of this interface think of a pool's sandboxes as their own, and delete them by id when
    they end.
    """
    info = await call.service.get_sandbox_info(sandbox_id)
    if info is not None and info.status is SandboxStatus.BUSY:
        raise SandboxLeased(f"Sandbox {sandbox_id} is lent to somebody; its pool will end it")


def _missing(sandbox_id: str) -> SandboxNotFound:
    return SandboxNotFound(f"Sandbox {sandbox_id} not found")
