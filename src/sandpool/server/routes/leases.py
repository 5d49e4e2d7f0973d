"""Leases that are held over HTTP: looked at, kept alive, and given back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from sandpool.server.context import CurrentTenant
from sandpool.wire import problems
from sandpool.wire.requests import LeaseState

router = APIRouter(prefix="/v1", tags=["leases"], responses=problems.RESPONSES)

_LeaseId = Annotated[str, Path(description="The lease's id.", max_length=128)]


@router.get("/leases/{lease}")
async def read_lease(lease: _LeaseId, tenant: CurrentTenant) -> LeaseState:
    """Describe a lease without keeping it alive."""
    holding = tenant.holdings.find(lease)
    return LeaseState(
        lease_id=lease,
        sandbox_id=holding.tenancy.id,
        pool=holding.pool,
        epoch=holding.tenancy.epoch,
        remaining=tenant.seconds_until(holding.tenancy.expires_at),
        keep_alive=holding.keep_alive,
    )


@router.post("/leases/{lease}/keep-alive", status_code=204)
async def keep_alive(lease: _LeaseId, tenant: CurrentTenant) -> None:
    """Put off the end of a lease, as every call through it does."""
    tenant.holdings.find(lease).touch()


@router.delete("/leases/{lease}", status_code=204)
async def end_lease(
    lease: _LeaseId,
    tenant: CurrentTenant,
    *,
    spoilt: Annotated[bool, Query(description="Never use the sandbox again.")] = False,
) -> None:
    """Give the sandbox back to its pool."""
    tenant.holdings.end(lease, spoilt=spoilt)
