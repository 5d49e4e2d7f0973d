"""Who may speak to the server at all: hosts, origins and keys, looked at before any route is.

Keys come by header only.  A browser sends none by itself, so a page, and with it whatever a sandbox
serves, cannot use its visitor's; an open server has no key to protect it, and so answers only under
names of this machine, and no page of another origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from sandpool.errors import ForbiddenOrigin, SandpoolError, Unauthorized
from sandpool.server.answers import send_problem
from sandpool.server.keys import Identity, KeyRing
from sandpool.server.settings import ServerSettings, is_loopback

PUBLIC = frozenset({"/healthz"})
"""Paths that need no key: they say nothing about anybody."""

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")


class Access:
    """The outermost layer of the application; leaves an `Identity` in the scope's state."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: KeyRing) -> None:
        """Guard `app`."""
        self._app = app
        self._settings = settings
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with what is wrong."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            identity = self._identify(scope)
        except SandpoolError as error:
            await send_problem(scope, send, error)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> Identity:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        check_visitor(
            headers, self._settings, is_open=self._keys.is_open, own_origin=origin_of(scope)
        )
        if scope["path"] in PUBLIC:
            return Identity(key=None, namespace=None)
        return self._keys.identify(presented_key(headers))


def check_visitor(
    headers: Iterable[tuple[bytes, bytes]],
    settings: ServerSettings,
    *,
    is_open: bool,
    own_origin: str | None = None,
) -> None:
    """Refuse who calls an open server by a strange name, and pages of elsewhere; `ForbiddenOrigin`.

    A page of elsewhere is told by its `Origin`, or, where a browser sends none, by what it says of
    the site that had the idea.  A link that somebody follows is no page's doing.  `own_origin` is
    that of the server's address: programs that name a sandbox as their host send it.
    """
    hosts: list[bytes] = []
    origins: list[bytes] = []
    site = mode = b""
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin":
            origins.append(value)
        elif name == b"sec-fetch-site":
            site = value
        elif name == b"sec-fetch-mode":
            mode = value
    host = parse_host(hosts)
    if is_open and not _is_own(host, settings):
        raise ForbiddenOrigin(
            f"this server has no key and so does not answer as {host}; name it under `hosts`"
        )
    for value in origins:
        origin = value.decode("latin-1")
        if origin != own_origin:
            _check_origin(origin, host, settings)
    if not origins and site in (b"cross-site", b"same-site") and mode != b"navigate":
        raise _foreign_page()


def origin_of(scope: Scope) -> str | None:
    """Return the origin that the address has which a request came in by; None: it has none."""
    host, port = scope.get("server") or ("", None)
    if port is None:
        return None
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_own(host: str, settings: ServerSettings) -> bool:
    if is_loopback(host) or host == settings.host.strip("[]") or host in settings.hosts:
        return True
    if host.endswith(".local"):
        return True
    return settings.domain is not None and (
        host == settings.domain or host.endswith("." + settings.domain)
    )


def _check_origin(origin: str, host: str, settings: ServerSettings) -> None:
    """Refuse pages: those of other origins, and those that sandboxes serve under our names."""
    if origin in settings.origins:
        return
    try:
        page = urlsplit(origin).hostname
    except ValueError:
        page = None
    # A name below .local is whatever a neighbour on the network says it is.
    if page is None or page != host or host.endswith(".local"):
        raise _foreign_page()


def _foreign_page() -> ForbiddenOrigin:
    return ForbiddenOrigin("pages of this origin may not call the server (`origins`)")


def parse_host(values: Iterable[bytes]) -> str:
    """Return the one host of a request, in lower case and without its port; `ForbiddenOrigin`."""
    found = list(values)
    match = _HOST.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        raise ForbiddenOrigin("a request names one host, and names it well")
    return match[1].decode().strip("[]").lower().rstrip(".")


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the key that a request carries; `Unauthorized` if it carries two."""
    found: list[str] = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.decode("latin-1").strip())
        elif name == b"authorization":
            scheme, _, rest = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":
                found.append(rest.strip())
    if len(set(found)) > 1:
        raise Unauthorized("a request carries one API key")
    return found[0] if found else None
