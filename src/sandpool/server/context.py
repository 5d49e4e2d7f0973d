"""What every route starts from: whose request it is, and the sandbox that it speaks of."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path
from starlette.requests import HTTPConnection

from sandpool.server.keys import Identity
from sandpool.server.tenants import DEFAULT, Tenant, Tenants
from sandpool.service import Sandbox, SandboxService
from sandpool.wire import headers


async def find_tenant(connection: HTTPConnection) -> Tenant:
    """Return the namespace of a request's key, and count the request; `RateLimited`."""
    identity: Identity = connection.scope["state"]["identity"]
    tenants: Tenants = connection.app.state.tenants
    tenant = await tenants.get(identity.namespace or DEFAULT)
    tenant.admit()
    return tenant


CurrentTenant = Annotated[Tenant, Depends(find_tenant)]


async def find_service(tenant: CurrentTenant) -> SandboxService:
    """Return all that a dialect needs of the request's namespace."""
    return tenant.manager


SandboxId = Annotated[str, Path(description="The sandbox's id.", max_length=128)]
PoolName = Annotated[str, Path(description="The pool's name.", max_length=128)]
LeaseId = Annotated[
    str | None,
    Header(alias=headers.LEASE, description="The lease through which the call is made."),
]


async def find_sandbox(
    tenant: CurrentTenant, sandbox_id: SandboxId, lease_id: LeaseId = None
) -> Sandbox:
    """Return the sandbox that a request speaks of, as its caller may use it.

    Raises `SandboxNotFound`, `SandboxNotActive`, `SandboxLeased`, and `LeaseNotFound`.
    """
    return tenant.sandbox(sandbox_id, lease_id)


CurrentSandbox = Annotated[Sandbox, Depends(find_sandbox)]
