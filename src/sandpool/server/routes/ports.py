"""Addresses of sandboxes' ports: given out to who holds the sandbox."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from sandpool.proxy.address import Address
from sandpool.proxy.gate import Gate
from sandpool.server.addresses import AddressBook
from sandpool.server.context import CurrentTenant, LeaseId, SandboxId
from sandpool.server.settings import ServerSettings
from sandpool.server.tenants import Tenant
from sandpool.wire import problems
from sandpool.wire.requests import PortAddress

router = APIRouter(prefix="/v1", tags=["ports"], responses=problems.RESPONSES)

_Port = Annotated[int, Path(ge=1, le=65_535, description="A port inside the sandbox.")]


@router.get("/sandboxes/{sandbox_id}/ports/{port}")
async def read_address(
    sandbox_id: SandboxId,
    port: _Port,
    tenant: CurrentTenant,
    request: Request,
    lease_id: LeaseId = None,
    *,
    private: Annotated[
        bool, Query(description="Have the port opened by its token only, whoever asks.")
    ] = False,
) -> PortAddress:
    """Return the address of a port, good until the sandbox's lease ends.

    Whether anything listens there is not looked at.
    """
    gate = open_gate(request, tenant, sandbox_id, lease_id)
    if private:
        gate.private.add(port)
    return PortAddress(
        url=write_address(request, gate.address(port)), port=port, token=gate.token(port)
    )


def open_gate(request: Request, tenant: Tenant, sandbox_id: str, lease_id: str | None) -> Gate:
    """Return the way into a sandbox's ports, to which its addresses lead from now on.

    Raises what `Tenant.gate` does.
    """
    book: AddressBook = request.app.state.addresses
    gate = tenant.gate(sandbox_id, lease_id)
    book.enter(tenant, gate)
    return gate


def write_address(request: Request, address: Address) -> str:
    """Return an address as the sender of this request can call it."""
    settings: ServerSettings = request.app.state.settings
    base = settings.public_url or f"{request.scope['scheme']}://{request.headers['host']}"
    return _url(address, base, settings.domain)


def _url(address: Address, base: str, domain: str | None) -> str:
    scheme, _, host = base.partition("://")
    if domain is None or not address.has_label:
        return f"{scheme}://{host}{address.path}/"
    _, colon, number = host.rpartition(":")
    is_port = bool(colon) and number.isdigit()
    return f"{scheme}://{address.label}.{domain}{':' + number if is_port else ''}/"
