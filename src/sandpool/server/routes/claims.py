"""The one-line door: `GET /claim/{pool}` takes a sandbox and answers with nothing but its URL.

A GET that changes state is not what GET is for, so a pool's definition has to allow it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response

from sandpool.errors import ForbiddenOrigin
from sandpool.server.context import CurrentTenant, PoolName
from sandpool.server.routes.pools import take
from sandpool.wire import problems
from sandpool.wire.requests import ClaimRequest

router = APIRouter(tags=["pools"], responses=problems.RESPONSES)


@router.get("/claim/{pool}")
async def claim_url(
    pool: PoolName,
    tenant: CurrentTenant,
    request: Request,
    response: Response,
    *,
    check_health: Annotated[bool, Query(description="Look at it first.")] = True,
    timeout: Annotated[float | None, Query(ge=0, le=86_400, description="Seconds to wait.")] = None,
    sec_fetch_site: Annotated[str, Header(include_in_schema=False)] = "none",
) -> str:
    """Take a sandbox for good and return its URL, where the pool's definition allows this door."""
    # Elsewhere a link that somebody follows does no harm; here it would take a sandbox.
    if sec_fetch_site not in ("none", "same-origin"):
        raise ForbiddenOrigin("a page of another site led here; claim from a program of yours")
    info = await tenant.manager.get_pool(pool)
    if not info.spec.allow_get_claim:
        raise HTTPException(
            405,
            f"pool {pool} is not claimed by GET (allow_get_claim); POST /v1/pools/{pool}/claim",
            {"Allow": "POST"},
        )
    if not info.spec.ports:
        raise HTTPException(409, f"the sandboxes of pool {pool} have no ports, and so no URL")
    claimed = await take(
        pool, tenant, request, ClaimRequest(check_health=check_health, timeout=timeout)
    )
    response.headers["Cache-Control"] = "no-store"
    return claimed.url or ""
