"""Sandboxes: made, described, changed, suspended, resumed and ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentDialect, CurrentNamespace, listener_url
from sandpool.dialects.tensorlake.creation import (
    answer_creation,
    describe_creation,
    refuse_mounts,
    terminate_unheard,
)
from sandpool.dialects.tensorlake.models import SandboxAnswer, SandboxChange, SandboxRequest
from sandpool.dialects.tensorlake.namespace import Namespace
from sandpool.dialects.tensorlake.record import Record
from sandpool.errors import InvalidSpec

router = APIRouter(route_class=Route)

_FROM_POOL = ("image", "resources", "timeout_secs", "entrypoint", "network", "snapshot_id", "name")
"""What a sandbox from a pool has from its pool, or cannot have."""

WaitMs = Annotated[int, Query(ge=0)]
"""How long the client would wait; both calls are over sooner than that."""


@router.post("/sandboxes")
async def create_sandbox(
    wanted: SandboxRequest, namespace: CurrentNamespace, dialect: CurrentDialect, request: Request
) -> Response:
    """Make a sandbox; with `pool_id`, claim one."""
    refuse_mounts(wanted.file_systems)
    if wanted.pool_id is None:
        record = await namespace.create(wanted)
    else:
        _refuse_with_pool(wanted)
        record = await namespace.claim(wanted.pool_id, max_pending_secs=wanted.max_pending_secs)
    if not wanted.wait:
        answer = await describe_creation(namespace, record, request)
        # The call that does not wait has another word for it, and clients know only one at a time.
        answer.content["state"] = answer.content.pop("status")
        terminate_unheard(dialect, namespace, record, request)
        return JSONResponse(answer.content, 202)
    terminate_unheard(dialect, namespace, record, request)
    answer = await answer_creation(dialect, namespace, record, request)
    return JSONResponse(answer.content, answer.status)


def _refuse_with_pool(wanted: SandboxRequest) -> None:
    for name in _FROM_POOL:
        if getattr(wanted, name) is not None:
            raise InvalidSpec(f"{name}: a sandbox from a pool has its pool's; leave it out")


@router.get("/sandboxes")
async def list_sandboxes(
    namespace: CurrentNamespace, request: Request
) -> dict[str, list[SandboxAnswer]]:
    """Describe the sandboxes that are not over."""
    found = [await _describe(namespace, record, request) for record in namespace.active()]
    return {"sandboxes": found}


@router.get("/sandboxes/{sandbox_id}")
async def read_sandbox(
    sandbox_id: str, namespace: CurrentNamespace, request: Request
) -> SandboxAnswer:
    """Describe a sandbox, for a time also after its end."""
    return await _describe(namespace, namespace.find(sandbox_id), request)


@router.patch("/sandboxes/{sandbox_id}")
async def update_sandbox(
    sandbox_id: str, wanted: SandboxChange, namespace: CurrentNamespace, request: Request
) -> SandboxAnswer:
    """Change what is given, and keep the rest."""
    record = namespace.find(sandbox_id)
    namespace.change(record, wanted)
    return await _describe(namespace, record, request)


@router.delete("/sandboxes/{sandbox_id}")
async def delete_sandbox(sandbox_id: str, namespace: CurrentNamespace) -> dict[str, str]:
    """End a sandbox and destroy its container; one that is over stays as it is."""
    record = namespace.find(sandbox_id)
    await namespace.terminate(record)
    return {"sandbox_id": record.id, "status": record.status}


@router.post("/sandboxes/{sandbox_id}/suspend")
async def suspend_sandbox(
    sandbox_id: str, namespace: CurrentNamespace, wait_ms: WaitMs = 0
) -> dict[str, str]:
    """Stop a named sandbox's processes where they are."""
    record = namespace.find(sandbox_id)
    if record.name is None:
        raise InvalidSpec("only a sandbox with a name can be suspended")
    await namespace.suspend(record)
    return {"sandbox_id": record.id, "status": record.status}


@router.post("/sandboxes/{sandbox_id}/resume")
async def resume_sandbox(
    sandbox_id: str, namespace: CurrentNamespace, wait_ms: WaitMs = 0
) -> dict[str, str]:
    """Let a suspended sandbox's processes go on."""
    record = namespace.find(sandbox_id)
    await namespace.resume(record)
    return {"sandbox_id": record.id, "status": record.status}


async def _describe(namespace: Namespace, record: Record, request: Request) -> SandboxAnswer:
    reason = await namespace.pending_reason(record) if record.status == "pending" else None
    return record.answer(namespace.name, url=listener_url(request), pending_reason=reason)
