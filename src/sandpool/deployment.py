"""Having pools as they are defined: made or changed, and full."""

from __future__ import annotations

import anyio

from sandpool.errors import AcquireTimeout, PoolExists
from sandpool.models import PoolInfo, PoolSpec
from sandpool.service import SandboxService


async def deploy(
    service: SandboxService, spec: PoolSpec, *, timeout: float | None = None
) -> PoolInfo:
    """Make a pool, or give it this definition, and return once `warm` sandboxes are ready.

    Doing it again without a change does nothing.  A pool that cannot be filled keeps its new
    definition and goes on trying.

    Args:
        service: Where.
        spec: The definition.
        timeout: Seconds to wait for the sandboxes; None: as long as they are being made.

    Raises:
        PoolDegraded: They cannot be made; its cause says why.
        AcquireTimeout: They were not ready in time.
    """
    try:
        await service.create_pool(spec)
    except PoolExists:
        await service.update_pool(spec.name, spec)
    with anyio.move_on_after(timeout) as scope:
        await service.wait_pool_warm(spec.name)
    info = await service.get_pool(spec.name)
    if scope.cancelled_caught:
        because = f": {info.last_error}" if info.last_error else ""
        raise AcquireTimeout(
            f"pool {spec.name} has {info.ready} of {spec.warm} sandboxes after {timeout:g}s"
            f"{because}"
        )
    return info
