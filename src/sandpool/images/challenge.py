"""What a registry's answer to a request without rights asks for: pure decisions.

    WWW-Authenticate: Bearer realm="https://auth.example/token",service="example"

The realm is an address that the registry chooses.  Our password goes there only if it is the
registry's own host or shares its domain, and is asked for over HTTPS; anybody else gets an
anonymous request, which is all that a public image needs.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_PARAMETER = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.){0,2048})"')
_PORTS = {"http": 80, "https": 443}
_MAX_HEADER = 16 * 1024


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to get rights."""

    scheme: str
    """In small letters."""
    realm: str = ""
    service: str = ""


def parse(header: str) -> Challenge | None:
    """Read the header; None if it is none that we know."""
    scheme, _, rest = header[:_MAX_HEADER].strip().partition(" ")
    if scheme.lower() not in ("bearer", "basic"):
        return None
    found = {key.lower(): value for key, value in _PARAMETER.findall(rest)}
    return Challenge(scheme.lower(), found.get("realm", ""), found.get("service", ""))


def may_know_password(realm: str, registry: str, *, is_plain: bool) -> bool:
    """Whether the password for a registry may go to a realm.

    Args:
        realm: The URL that the registry has named.
        registry: The host, and port if any, that the password is for.
        is_plain: Whether the registry itself is spoken to without encryption.
    """
    try:
        url = urlsplit(realm)
        host, own = url.hostname or "", urlsplit(f"//{registry}").hostname or ""
        port = url.port
    except ValueError:
        return False
    if url.scheme != "https" and not (is_plain and url.scheme == "http"):
        return False
    if host == own:
        # Another port of one machine may be another user's.
        return not is_loopback(own) or (port or _PORTS[url.scheme]) == _port(registry, url.scheme)
    shared = None if is_address(host) or is_address(own) else _domain(own)
    return shared is not None and _domain(host) == shared


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine."""
    if host == "localhost":
        return True
    return is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback


def is_address(host: str) -> bool:
    """Whether a host is given by its number."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _port(registry: str, scheme: str) -> int:
    return urlsplit(f"//{registry}").port or _PORTS[scheme]


def _domain(host: str) -> str | None:
    """Return what a host has in common with its neighbours; None: nothing that means anything.

    Two labels may be a country's (`co.uk`), under which strangers are neighbours; then it is three.
    """
    labels = host.lower().rstrip(".").split(".")
    size = 3 if len(labels) > 1 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return ".".join(labels[-size:]) if len(labels) >= size else None
