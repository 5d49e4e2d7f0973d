"""Sandboxes that are over, as long as they are remembered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentNamespace, listener_url
from sandpool.dialects.tensorlake.namespace import Namespace
from sandpool.dialects.tensorlake.record import Record
from sandpool.errors import SandboxNotFound

router = APIRouter(route_class=Route)

_LARGEST_PAGE = 100


@router.get("/archived-sandboxes")
async def list_archived(
    namespace: CurrentNamespace,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1_000)] = _LARGEST_PAGE,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    direction: Literal["forward", "backward"] = "forward",
) -> dict[str, Any]:
    """Describe them, the last one to end first, a page at a time.

    A cursor is the id of the sandbox next to a page, so it is good as long as that is remembered.
    """
    found = namespace.over()
    places = {record.id: place for place, record in enumerate(found)}
    start = places.get(cursor, 0) if cursor is not None else 0
    if direction == "backward":
        start = max(0, start - limit + 1)
    page = found[start : start + limit]
    following = found[start + limit : start + limit + 1]
    return {
        "sandboxes": [_describe(namespace, record, request) for record in page],
        "prev_cursor": found[start - 1].id if start else None,
        "next_cursor": following[0].id if following else None,
    }


@router.get("/archived-sandboxes/{sandbox_id}")
async def read_archived(
    sandbox_id: str, namespace: CurrentNamespace, request: Request
) -> dict[str, Any]:
    """Describe one; 404 for one that is not over."""
    record = namespace.find(sandbox_id)
    if not record.is_over:
        raise SandboxNotFound(f"sandbox {sandbox_id} is not archived")
    return _describe(namespace, record, request)


def _describe(namespace: Namespace, record: Record, request: Request) -> dict[str, Any]:
    answer = record.answer(namespace.name, url=listener_url(request), pending_reason=None)
    return {**answer.model_dump(mode="json"), "archived_at": answer.terminated_at}
