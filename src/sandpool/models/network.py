"""What sandboxes may connect to."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Network
from typing import Annotated, Literal, cast

from pydantic import Field, field_validator

from sandpool.models.value import Port, Value

PortRange = Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")]
"""The first and the last of some ports, as in `8000-8099`."""
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LOOKS_LIKE_ADDRESS = re.compile(r"[0-9./]+")
_NOWHERE = tuple(
    map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"))
)
"""What no sandbox can be let through to: itself, nobody, or our own links (`native/egress`)."""


class Destination(Value):
    """Where a sandbox may connect to."""

    host: str = Field(min_length=1, max_length=255)
    """A name, as in `pypi.org`; all names below one, as in `*.example.com`; all names, `*`; an IPv4
    address; or a network, as in `203.0.113.0/24`.  Private and link-local addresses, and those of
    the host, are open only to what names them, or a part of their range: `10.1.0.0/16`."""
    ports: tuple[Port | PortRange, ...] = Field(default=(), max_length=16)
    """Numbers, and ranges such as `8000-8099`; none: all."""
    protocol: Literal["tcp", "udp", "any"] = "tcp"

    @field_validator("host")
    @classmethod
    def _known_host(cls, host: str) -> str:
        host = host.lower()
        if ":" in host:
            raise ValueError(
                f"{host!r} is neither a name nor an IPv4 address or network; ports have a field of "
                "their own, and IPv6 is closed"
            )
        if _LOOKS_LIKE_ADDRESS.fullmatch(host):
            network = _network(host)
            if any(network.subnet_of(nowhere) for nowhere in _NOWHERE):
                raise ValueError(f"{host} cannot be reached from a sandbox, whatever is allowed")
        elif host != "*" and not _is_name(host.removeprefix("*.")):
            raise ValueError(
                f"{host!r} is not a host name, such as 'pypi.org', nor a wildcard, such as "
                "'*.pypi.org'"
            )
        return host

    @field_validator("ports")
    @classmethod
    def _known_ports(cls, ports: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for first, last in map(_port_range, ports):
            if not 1 <= first <= last <= _LAST_PORT:
                raise ValueError(f"{first}-{last} is not a range of ports from 1 to {_LAST_PORT}")
        return ports

    @property
    def network(self) -> IPv4Network | None:
        """What it is, if it is an address or a network; None: it is a name."""
        return _network(self.host) if _LOOKS_LIKE_ADDRESS.fullmatch(self.host) else None

    @property
    def port_ranges(self) -> tuple[tuple[int, int], ...]:
        """The first and the last of each range of ports; empty: all."""
        return tuple(map(_port_range, self.ports))


_LAST_PORT = 65_535


def _port_range(port: int | str) -> tuple[int, int]:
    first, _, last = str(port).partition("-")
    return int(first), int(last or first)


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IPv4 address or network: {error}") from None


def _is_name(name: str) -> bool:
    return len(name) <= 253 and all(map(_HOST_NAME.fullmatch, name.split(".")))


class Network(Value):
    """What sandboxes may connect to; everything else is refused, and nobody connects to them."""

    allow: tuple[Destination, ...] = Field(min_length=1, max_length=256)
    """A host alone may stand for its destination."""

    @field_validator("allow", mode="before")
    @classmethod
    def _hosts_to_destinations(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            items = cast("Collection[object]", value)
            return [{"host": item} if isinstance(item, str) else item for item in items]
        return value
