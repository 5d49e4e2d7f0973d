"""`Ports`: the layer that serves sandboxes' ports, in front of all that is the server's own.

    /p/{sandbox}/{port}/...        pages get an origin of their own by a policy, and no cookies but
                                   those of their port
    {port}-{sandbox}.{domain}      pages have an origin of their own

Whoever has the lease's token has its port, as long as the lease lasts.  Who has none needs what the
API asks for, and gets to the sandboxes of the own namespace.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from sandpool.errors import SandpoolError, Unauthorized
from sandpool.proxy import address as addresses
from sandpool.proxy.address import Address
from sandpool.proxy.headers import TOKEN, Headers, Place
from sandpool.server.access import check_visitor, parse_host, presented_key
from sandpool.server.addresses import AddressBook, Entry
from sandpool.server.answers import send_problem
from sandpool.server.keys import KeyRing
from sandpool.server.relay import Errand, relay_http
from sandpool.server.settings import ServerSettings
from sandpool.server.sockets import relay_websocket
from sandpool.server.tenants import DEFAULT, Tenants
from sandpool.wire.headers import LEASE

_LEASE = LEASE.lower().encode()

_OPAQUE = b"null"
"""The origin of pages that have been given one of their own."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a request asks for."""

    address: Address
    target: bytes
    """The path inside, as it was sent; empty where a slash is missing at the end."""
    is_shared: bool
    """Whether the origin is that of the server and of other sandboxes."""


class Ports:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        keys: KeyRing,
        tenants: Tenants,
        book: AddressBook,
    ) -> None:
        """Leave to `app` what is not for a sandbox's port."""
        self._app = app
        self._settings = settings
        self._keys = keys
        self._tenants = tenants
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            wanted = self._read(scope)
            if wanted is not None:
                await self._serve(wanted, scope, receive, send)
                return
        except SandpoolError as error:
            await send_problem(scope, send, error)
            return
        await self._app(scope, receive, send)

    def _read(self, scope: Scope) -> _Wanted | None:
        domain = self._settings.domain
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if domain is not None:
            host = parse_host(value for name, value in scope["headers"] if name == b"host")
            address = addresses.parse_host(host, domain)
            if address is not None:
                addresses.check_path(raw)
                return _Wanted(address, raw or b"/", is_shared=False)
        if not addresses.is_below_prefix(scope["path"]):
            return None
        address, target = addresses.parse_path(raw)
        return _Wanted(address, target, is_shared=True)

    async def _serve(self, wanted: _Wanted, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        entry = await self._find(wanted, headers)
        scope.setdefault("state", {})["namespace"] = entry.tenant.name
        entry.tenant.admit()
        is_http = scope["type"] == "http"
        if is_http and not wanted.target:
            await _add_slash(wanted.address, scope, send)
            return
        is_own_page = wanted.address.token is not None and _origin(headers) == _OPAQUE
        if is_http and is_own_page and wanted.is_shared and _is_preflight(scope):
            await _answer_preflight(send)
            return
        query: bytes = scope["query_string"]
        errand = Errand(
            entry=entry,
            port=wanted.address.port,
            target=(wanted.target or b"/") + (b"?" + query if query else b""),
            place=_place(wanted, scope),
            is_readable_by_own_page=is_own_page and wanted.is_shared,
            timeout=self._settings.port_timeout,
            idle_timeout=self._settings.port_idle_timeout,
        )
        if is_http:
            await relay_http(errand, scope, receive, send)
        else:
            await relay_websocket(errand, scope, receive, send)

    async def _find(self, wanted: _Wanted, headers: Headers) -> Entry:
        """Return the lease that a request may use; raises why it may not."""
        address = wanted.address
        token = address.token or _single(headers, TOKEN)
        if token is not None:
            return self._book.find(Address(address.sandbox, address.port, token))
        check_visitor(headers, self._settings, is_open=self._keys.is_open)
        identity = self._keys.identify(presented_key(headers))
        tenant = await self._tenants.get(identity.namespace or DEFAULT)
        gate = tenant.gate(address.sandbox, _single(headers, _LEASE))
        if address.port in gate.private:
            raise Unauthorized("this port is opened by its token, which its URL carries")
        return self._book.enter(tenant, gate)


def _place(wanted: _Wanted, scope: Scope) -> Place:
    client = scope.get("client")
    address = wanted.address
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    scheme: str = scope["scheme"]
    return Place(
        host=host,
        scheme=b"https" if scheme in ("https", "wss") else b"http",
        client=client[0].encode() if client else b"unknown",
        prefix=address.path.encode() if wanted.is_shared else b"",
        cookie_prefix=(
            f"sp.{address.port}.{address.sandbox}~".encode() if wanted.is_shared else b""
        ),
        has_token=address.token is not None,
    )


def _single(headers: Headers, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)


def _origin(headers: Headers) -> bytes | None:
    return next((value for name, value in headers if name == b"origin"), None)


def _is_preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in scope["headers"]
    )


async def _add_slash(address: Address, scope: Scope, send: Send) -> None:
    """Send a visitor to where relative links lead to the same port."""
    query: bytes = scope["query_string"]
    location = address.path.encode() + b"/" + (b"?" + query if query else b"")
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 308, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer_preflight(send: Send) -> None:
    """Let a page call its own port: for its browser, an origin of its own is another origin.

    It may because it has the token; without, its origin could be anybody's.
    """
    headers = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (b"access-control-allow-headers", b"*"),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
