"""Pools: definitions, figures, claims and loans, and the pool without a name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from sandpool.errors import SandboxDied
from sandpool.manager.tenancy import Tenancy
from sandpool.models import PoolInfo, PoolSpec, SandboxInfo, SandboxReference, ToolResult
from sandpool.proxy.address import Address
from sandpool.server.context import CurrentTenant, PoolName
from sandpool.server.departure import undo_if_unheard
from sandpool.server.routes.ports import open_gate, write_address
from sandpool.server.tenants import Tenant
from sandpool.wire import problems
from sandpool.wire.requests import (
    Claimed,
    ClaimRequest,
    InitializePool,
    Leased,
    LeaseRequest,
    PooledToolCall,
)

router = APIRouter(prefix="/v1", tags=["pools"], responses=problems.RESPONSES)


@router.post("/pools", status_code=201)
async def create_pool(spec: PoolSpec, tenant: CurrentTenant, response: Response) -> PoolInfo:
    """Make a pool and begin to fill it."""
    info = await tenant.create_pool(spec)
    response.headers["Location"] = f"/v1/pools/{info.name}"
    return info


@router.get("/pools")
async def list_pools(tenant: CurrentTenant) -> list[PoolInfo]:
    """Describe all pools."""
    return await tenant.manager.list_pools()


@router.get("/pools/{pool}")
async def read_pool(pool: PoolName, tenant: CurrentTenant) -> PoolInfo:
    """Describe one pool."""
    return await tenant.manager.get_pool(pool)


@router.put("/pools/{pool}")
async def update_pool(pool: PoolName, spec: PoolSpec, tenant: CurrentTenant) -> PoolInfo:
    """Give a pool a new definition."""
    return await tenant.manager.update_pool(pool, spec)


@router.delete("/pools/{pool}", status_code=204)
async def delete_pool(pool: PoolName, tenant: CurrentTenant, *, force: bool = False) -> None:
    """Remove a pool; refused while it has leases, unless `force` ends them."""
    await tenant.manager.delete_pool(pool, force=force)


@router.post("/pools/{pool}/warm", status_code=204)
async def wait_pool_warm(
    pool: PoolName,
    tenant: CurrentTenant,
    count: Annotated[int | None, Query(ge=0, le=100_000)] = None,
) -> None:
    """Answer once `count` sandboxes, by default all of `warm`, are ready."""
    await tenant.manager.wait_pool_warm(pool, count)


@router.get("/pools/{pool}/sandboxes")
async def check_pool(
    pool: PoolName,
    tenant: CurrentTenant,
    request: Request,
    *,
    check_health: Annotated[bool, Query(description="Look at each of them.")] = False,
) -> list[SandboxReference]:
    """Describe the ready sandboxes, in the order of their hand-out, without taking any.

    Their addresses answer with 409 until they are claimed.
    """
    entries = await tenant.manager.check_pool(pool, check_health=check_health)
    ports = tenant.manager.pool_ports(pool)
    if not ports:
        return entries
    urls = (write_address(request, Address(entry.id, ports[0])) for entry in entries)
    return [entry.model_copy(update={"url": url}) for entry, url in zip(entries, urls, strict=True)]


@router.post("/pools/{pool}/claim")
async def claim(
    pool: PoolName, tenant: CurrentTenant, request: Request, body: ClaimRequest | None = None
) -> Claimed:
    """Take a sandbox for good: it is the caller's until it is deleted or ends by itself."""
    return await take(pool, tenant, request, body or ClaimRequest())


async def take(pool: str, tenant: Tenant, request: Request, wanted: ClaimRequest) -> Claimed:
    """Claim a sandbox for the sender of a request; one that never hears of it has none."""
    sandbox = await tenant.manager.claim(
        pool,
        timeout=wanted.timeout,
        min_remaining=wanted.min_remaining,
        check_health=wanted.check_health,
        env=wanted.env,
        cwd=wanted.cwd,
        lifetime=wanted.lifetime,
        limits=wanted.limits,
    )
    undo_if_unheard(request, lambda: tenant.manager.delete_sandbox(sandbox.id))
    info = await _describe(tenant, sandbox.id)
    url: str | None = None
    if ports := tenant.manager.pool_ports(pool):
        gate = open_gate(request, tenant, sandbox.id, None)
        url = write_address(request, gate.address(ports[0]))
    return Claimed(
        id=sandbox.id,
        url=url,
        expires_at=sandbox.expires_at,
        sandbox=info,
        pool=pool,
        remaining=sandbox.remaining,
    )


@router.post("/pools/{pool}/lease", status_code=201)
async def lease(
    pool: PoolName, tenant: CurrentTenant, request: Request, body: LeaseRequest | None = None
) -> Leased:
    """Borrow a sandbox until the lease is given back, or no call has kept it alive."""
    wanted = body or LeaseRequest()
    tenant.holdings.check_room()
    tenancy = await tenant.manager.borrow(
        pool,
        timeout=wanted.timeout,
        min_remaining=wanted.min_remaining,
        env=wanted.env,
        cwd=wanted.cwd,
        limits=wanted.limits,
    )
    undo_if_unheard(request, lambda: _spoil(tenancy))
    holding = tenant.holdings.add(tenancy, pool=pool, keep_alive=wanted.keep_alive)
    info = await _describe(tenant, tenancy.id)
    return Leased(
        lease_id=tenancy.lease_id,
        sandbox=info,
        pool=pool,
        remaining=tenant.seconds_until(tenancy.expires_at),
        keep_alive=holding.keep_alive,
    )


@router.post("/initialize")
async def initialize(tenant: CurrentTenant, body: InitializePool | None = None) -> list[str]:
    """Warm the pool behind `/v1/execute`, and return the ids of its members."""
    wanted = body or InitializePool()
    return await tenant.manager.initialize_pool(wanted.pool_size, wanted.type, wanted.config)


@router.post("/execute/{tool}")
async def execute(
    tool: str, tenant: CurrentTenant, body: PooledToolCall | None = None
) -> ToolResult:
    """Borrow a sandbox of the pool without a name, run one tool in it, and give it back."""
    call = body or PooledToolCall()
    return await tenant.manager.execute_tool_in_pool(tool, call.parameters, call.timeout)


async def _describe(tenant: Tenant, sandbox_id: str) -> SandboxInfo:
    info = await tenant.manager.get_sandbox_info(sandbox_id)
    if info is None:
        raise SandboxDied(f"sandbox {sandbox_id} died while it was being handed over")
    return info


async def _spoil(tenancy: Tenancy) -> None:
    tenancy.spoil()
