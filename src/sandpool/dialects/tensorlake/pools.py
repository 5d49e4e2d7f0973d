"""Pools: made, described, changed, deleted, and claimed from."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentDialect, CurrentNamespace
from sandpool.dialects.tensorlake.creation import answer_creation, refuse_mounts, terminate_unheard
from sandpool.dialects.tensorlake.models import ClaimRequest, PoolAnswer, PoolRequest

router = APIRouter(route_class=Route)


@router.post("/sandbox-pools", status_code=201)
async def create_pool(wanted: PoolRequest, namespace: CurrentNamespace) -> dict[str, str]:
    """Make a pool; its containers come by themselves."""
    return {"pool_id": await namespace.pools.create(wanted), "namespace": namespace.name}


@router.get("/sandbox-pools")
async def list_pools(namespace: CurrentNamespace) -> dict[str, list[PoolAnswer]]:
    """Describe all pools, without their containers."""
    return {"pools": await namespace.pools.list()}


@router.get("/sandbox-pools/{pool_id}")
async def read_pool(pool_id: str, namespace: CurrentNamespace) -> PoolAnswer:
    """Describe a pool with its containers."""
    return await namespace.pools.get(pool_id, namespace.by_container())


@router.put("/sandbox-pools/{pool_id}")
async def update_pool(pool_id: str, wanted: PoolRequest, namespace: CurrentNamespace) -> PoolAnswer:
    """Put another definition in the place of a pool's."""
    return await namespace.pools.update(pool_id, wanted)


@router.delete("/sandbox-pools/{pool_id}")
async def delete_pool(pool_id: str, namespace: CurrentNamespace) -> dict[str, str]:
    """Remove a pool; refused while a sandbox of it is not terminated."""
    await namespace.delete_pool(pool_id)
    return {"pool_id": pool_id}


@router.post("/sandbox-pools/{pool_id}/sandboxes")
async def claim(
    pool_id: str,
    namespace: CurrentNamespace,
    dialect: CurrentDialect,
    request: Request,
    wanted: ClaimRequest | None = None,
) -> Response:
    """Claim a sandbox; it may have to wait for a container."""
    if wanted is not None:
        refuse_mounts(wanted.file_systems)
    record = await namespace.claim(pool_id)
    terminate_unheard(dialect, namespace, record, request)
    answer = await answer_creation(dialect, namespace, record, request)
    if wanted is not None:
        answer.content["claim_configuration_applied"] = True
    return JSONResponse(answer.content, answer.status)
