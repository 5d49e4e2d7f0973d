"""A sandbox's stateful interpreters: started, given cells, and ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from sandpool.models import ContextResult
from sandpool.server.context import CurrentSandbox
from sandpool.server.departure import undo_if_unheard
from sandpool.server.following import ANSWERS_EVENTS, Followed
from sandpool.service import OnOutput
from sandpool.wire import events, problems
from sandpool.wire.contexts import Cell, ContextState, NewContext, write_result

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/contexts", tags=["contexts"], responses=problems.RESPONSES
)

_ContextId = Annotated[str, Path(description="The interpreter's id.", max_length=128)]
_Accept = Annotated[str, Header(include_in_schema=False)]


@router.post("", status_code=201)
async def open_context(
    sandbox: CurrentSandbox, request: Request, body: NewContext | None = None
) -> ContextState:
    """Start an interpreter."""
    wanted = body or NewContext()
    context = await sandbox.contexts.open(env=wanted.env, cwd=wanted.cwd)
    undo_if_unheard(request, context.aclose)
    return ContextState(id=context.id)


@router.get("")
async def list_contexts(sandbox: CurrentSandbox) -> list[ContextState]:
    """List the living ones."""
    return [ContextState(id=found) for found in await sandbox.contexts.list()]


@router.post("/{context_id}/cells", response_model=ContextResult, responses=ANSWERS_EVENTS)
async def run_cell(
    context_id: _ContextId, sandbox: CurrentSandbox, body: Cell, *, accept: _Accept = "*/*"
) -> ContextResult | Response:
    """Run one cell; with `Accept: text/event-stream`, its output as it comes."""
    context = sandbox.contexts.get(context_id)
    if events.MEDIA_TYPE not in accept:
        return await context.run(body.code, timeout=body.timeout)

    async def follow(on_output: OnOutput) -> bytes:
        return write_result(await context.run(body.code, timeout=body.timeout, on_output=on_output))

    return Followed(follow)


@router.delete("/{context_id}", status_code=204)
async def close_context(context_id: _ContextId, sandbox: CurrentSandbox) -> None:
    """End an interpreter; one that has ended is fine."""
    await sandbox.contexts.get(context_id).aclose()
