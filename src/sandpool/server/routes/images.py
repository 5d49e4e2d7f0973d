"""Images: what the caller's sandboxes can be made from by name."""

from __future__ import annotations

from fastapi import APIRouter

from sandpool.models import ImageInfo
from sandpool.server.context import CurrentTenant
from sandpool.wire import problems

router = APIRouter(prefix="/v1", tags=["images"], responses=problems.RESPONSES)


@router.get("/images")
async def list_images(tenant: CurrentTenant) -> list[ImageInfo]:
    """List the images that have a name: `host`, those of the operator, and those of the pools.

    A root directory of the server's machine is an image too, named by its path; one is listed only
    where a pool of the caller's uses it.
    """
    return await tenant.manager.list_images()
