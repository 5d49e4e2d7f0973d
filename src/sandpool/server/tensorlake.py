"""The Tensorlake dialect in this server: its namespaces are ours, and sandboxes have hosts."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from sandpool.clock import Clock
from sandpool.dialects.tensorlake import SANDBOX, DialectSettings, Home, TensorlakeDialect
from sandpool.server.departure import undo_if_unheard
from sandpool.server.keys import Identity
from sandpool.server.settings import NAMESPACE_PATTERN, ServerSettings
from sandpool.server.tenants import DEFAULT, Tenants

_HEADER = b"x-tensorlake-sandbox-id"
_HOST = re.compile(rb"([a-z0-9-]{1,63})\.local(:[0-9]{1,5})?", re.IGNORECASE)


def create_dialect(tenants: Tenants, settings: ServerSettings, clock: Clock) -> TensorlakeDialect:
    """Return the dialect over the server's namespaces."""

    async def find_home(connection: HTTPConnection, namespace: str | None) -> Home:
        identity: Identity = connection.scope["state"]["identity"]
        name = own_namespace(identity, namespace)
        tenant = await tenants.get(name)
        tenant.admit()
        return Home(name, tenant.manager, tenant.create_pool)

    return TensorlakeDialect(
        find_home,
        settings=DialectSettings(
            url=settings.public_url,
            default_image=settings.default_image,
            secrets=settings.secrets,
            on_timeout=settings.on_timeout,
        ),
        undo_if_unheard=undo_if_unheard,
        clock=clock,
    )


def own_namespace(identity: Identity, wanted: str | None) -> str:
    """Return the namespace that a request may speak of; `HTTPException` 404 for any other.

    Somebody else's is as absent as one that there is not.
    """
    own = identity.namespace
    name = wanted if wanted is not None else own or DEFAULT
    if (own is not None and name != own) or re.fullmatch(NAMESPACE_PATTERN, name) is None:
        raise HTTPException(404, "there is no such namespace")
    return name


class Dispatch:
    """A layer that tells what is for a single sandbox from what is for the server.

    It looks before any route does, because both have paths of the same form.
    """

    def __init__(self, app: ASGIApp, data_plane: ASGIApp) -> None:
        """Send what names a sandbox to `data_plane`, and all else to `app`."""
        self._app = app
        self._data_plane = data_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        sandbox = None if scope["type"] == "lifespan" else named_sandbox(scope["headers"])
        if sandbox is None:
            await self._app(scope, receive, send)
            return
        scope[SANDBOX] = sandbox
        await self._data_plane(scope, receive, send)


def named_sandbox(headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the sandbox that a request is for, by its host or else by its header."""
    by_header: str | None = None
    for name, value in headers:
        if name == b"host" and (match := _HOST.fullmatch(value)) is not None:
            return match[1].decode().lower()
        if name == _HEADER and by_header is None:
            by_header = value.decode("latin-1").strip()
    return by_header
