"""What is passed on of a request's and of an answer's headers: pure functions.

A request brings what its sender keeps for us, such as the API key; an answer is written by whoever
runs code in the sandbox, for a browser that trusts our name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sandpool.errors import BadGateway, BadRequest

Headers = list[tuple[bytes, bytes]]

TOKEN = b"x-sandpool-token"
"""The request header that may carry the token instead of the address."""

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_OURS = frozenset({b"x-api-key", b"expect", b"forwarded", b"x-real-ip"})
"""What a sandbox never gets of a request: it is for this server, or could lie about it."""

_TOO_FAR = frozenset({
    b"alt-svc", b"clear-site-data", b"nel", b"public-key-pins", b"report-to",
    b"strict-transport-security",
})  # fmt: skip
"""What an answer may not say, because it would bind other sandboxes, or this server."""

_ORIGIN_WIDE = frozenset({b"service-worker-allowed", b"access-control-allow-credentials"})
"""What it may not say where it shares its origin with others."""

ISOLATION = (
    b"sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads "
    b"allow-pointer-lock allow-orientation-lock allow-presentation"
)
"""The policy of a page that shares its origin: it is given one of its own, which is nobody's."""

MOST_HEADERS = 128
"""Lines in the head of an answer."""

_COOKIE_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request came to, as its sender sees it."""

    host: bytes
    """The Host header."""
    scheme: bytes
    client: bytes
    """The address of the sender."""
    prefix: bytes = b""
    """The path below which the port is served; empty where it has a host name of its own."""
    cookie_prefix: bytes = b""
    """What the names of the port's cookies begin with, where the origin is shared."""
    has_token: bool = False
    """Whether the address is a secret."""


def request_headers(headers: Iterable[tuple[bytes, bytes]], place: Place) -> Headers:
    """Return the headers that a sandbox gets of a request, without any that frame its body."""
    found = list(headers)
    dropped = _listed(found) | _HOP_BY_HOP | _OURS
    result: Headers = []
    before: list[bytes] = []
    for name, value in found:
        if name == b"cookie":
            if place.cookie_prefix:
                value = _own_cookies(value, place.cookie_prefix)
            if value:
                result.append((name, value))
        elif name == b"x-forwarded-for":
            before.append(value)
        elif not (
            name in dropped
            or name == b"content-length"
            or name.startswith((b"x-forwarded-", b"x-sandpool-"))
            or (name == b"authorization" and _is_key(value))
        ):
            result.append((name, value))
    result += [
        (b"x-forwarded-for", b", ".join([*before, place.client])),
        (b"x-forwarded-proto", place.scheme),
        (b"x-forwarded-host", place.host),
    ]
    if place.prefix:
        result.append((b"x-forwarded-prefix", place.prefix))
    return result


def response_headers(headers: Iterable[tuple[bytes, bytes]], place: Place) -> Headers:
    """Return the headers that a client gets of an answer from a sandbox."""
    found = list(headers)
    dropped = _listed(found) | _HOP_BY_HOP | _TOO_FAR
    result: Headers = []
    for name, value in found:
        # The server in front sets its own date.
        if name in dropped or name == b"date" or (place.prefix and name in _ORIGIN_WIDE):
            continue
        if name == b"set-cookie":
            cookie = _scoped_cookie(value, place)
            if cookie is not None:
                result.append((name, cookie))
        elif name in (b"location", b"content-location"):
            result.append((name, _moved(value, place)))
        elif not (place.has_token and name == b"referrer-policy"):
            result.append((name, value))
    if place.prefix:
        result.append((b"content-security-policy", ISOLATION))
    if place.has_token:
        result.append((b"referrer-policy", b"no-referrer"))
    return result


def body_framing(headers: Headers) -> Headers:
    """Return the header that says how a request's body is framed, if it has one; `BadRequest`."""
    framing = [
        (name, value)
        for name, value in headers
        if name in (b"content-length", b"transfer-encoding")
    ]
    if len(framing) > 1:
        raise BadRequest("the request gives its body two lengths")
    if framing and framing[0][0] == b"transfer-encoding":
        return [(b"transfer-encoding", b"chunked")]
    return framing


def check_response(headers: Headers) -> None:
    """Raise `BadGateway` for a head that two readers could take for two different answers."""
    if len(headers) > MOST_HEADERS:
        raise BadGateway(f"the sandbox's server sent more than {MOST_HEADERS} headers")
    framing = {name for name, _ in headers if name in (b"content-length", b"transfer-encoding")}
    if len(framing) > 1:
        raise BadGateway("the sandbox's server gave its answer two lengths")


def _listed(headers: Headers) -> frozenset[bytes]:
    """Return the names that `Connection` says are for the next hop alone."""
    return frozenset(
        name.strip().lower()
        for header, value in headers
        if header == b"connection"
        for name in value.split(b",")
    )


def _is_key(value: bytes) -> bool:
    """Whether an `Authorization` is a key of a server like this one."""
    scheme, _, rest = value.partition(b" ")
    return scheme.lower() == b"bearer" and rest.strip().startswith(b"sp_")


def _own_cookies(value: bytes, prefix: bytes) -> bytes:
    """Return those of a request's cookies that the port has set, under the names it gave them.

    The others belong to whatever else is served under this name, on any port of the machine.
    """
    pairs = (pair.strip() for pair in value.split(b";"))
    return b"; ".join(pair[len(prefix) :] for pair in pairs if pair.startswith(prefix))


def _scoped_cookie(value: bytes, place: Place) -> bytes | None:
    """Return a cookie that reaches its own port only; None for what is no cookie."""
    pair, *attributes = (part.strip() for part in value.split(b";"))
    name, equals, _ = pair.partition(b"=")
    if not equals or _COOKIE_NAME.fullmatch(name.strip()) is None:
        return None
    path = b"/"
    kept: list[bytes] = []
    for attribute in attributes:
        key, _, detail = attribute.partition(b"=")
        key = key.strip().lower()
        if key == b"path" and place.prefix:
            path = detail.strip() if detail.strip().startswith(b"/") else b"/"
        elif key != b"domain":
            kept.append(attribute)
    if place.prefix:
        kept.append(b"Path=" + place.prefix + path)
    return b"; ".join([place.cookie_prefix + pair, *kept])


def _moved(location: bytes, place: Place) -> bytes:
    """Return where a redirection leads, seen from outside."""
    if not place.prefix:
        return location
    own = place.scheme + b"://" + place.host
    if location == own or location.startswith(own + b"/"):
        location = location[len(own) :] or b"/"
    elif not location.startswith(b"/") or location[1:2] in (b"/", b"\\"):
        return location
    return location if location.startswith(place.prefix + b"/") else place.prefix + location
