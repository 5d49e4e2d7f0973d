"""What the URL of a sandbox's port says, in both forms, and how it is written.

    path    /p/{sandbox}/{port}/...             /p/{sandbox}~{token}/{port}/...
    host    {port}-{sandbox}.{domain}           {port}-{sandbox}--{token}.{domain}

An address has one spelling.  Whatever a proxy or a browser between might read otherwise (escapes,
dots, a port with a leading zero) is refused, so that all of them speak of the same sandbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from sandpool.errors import BadAddress, InvalidSpec, Misdirected

PREFIX = b"/p/"

TOKEN_LENGTH = 32
"""Hexadecimal digits: 128 bits, in letters that survive a host name."""

_SANDBOX = "[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
_PORT = "[1-9][0-9]{0,4}"
_TOKEN = f"[0-9a-f]{{{TOKEN_LENGTH}}}"

_PATH = re.compile(f"/p/({_SANDBOX})(?:~({_TOKEN}))?/({_PORT})(/.*)?".encode(), re.DOTALL)
_LABEL = re.compile(f"({_PORT})-([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)", re.ASCII)
_TAIL = re.compile(f"(.+)--({_TOKEN})", re.ASCII)

_LONGEST_LABEL = 63


@dataclass(frozen=True, slots=True)
class Address:
    """A port of a sandbox, and what entitles the caller to it, if the address says so."""

    sandbox: str
    port: int
    token: str | None = None

    @property
    def path(self) -> str:
        """The path below which the port is served, without the slash at the end."""
        token = f"~{self.token}" if self.token is not None else ""
        return f"/p/{self.sandbox}{token}/{self.port}"

    @property
    def has_label(self) -> bool:
        """Whether it can be written as a host name: not every id is short and plain enough."""
        return len(self._label) <= _LONGEST_LABEL and _LABEL.fullmatch(self._label) is not None

    @property
    def label(self) -> str:
        """The first label of its host name; `InvalidSpec` if it has none."""
        if not self.has_label:
            raise InvalidSpec(
                f"sandbox {self.sandbox} has no host name: its id has to be short, and made of "
                "lower-case letters, digits and hyphens"
            )
        return self._label

    @property
    def _label(self) -> str:
        token = f"--{self.token}" if self.token is not None else ""
        return f"{self.port}-{self.sandbox}{token}"


def is_below_prefix(path: str) -> bool:
    """Whether a decoded path is meant for a sandbox, well spelt or not."""
    return path == "/p" or path.startswith("/p/")


def parse_path(raw: bytes) -> tuple[Address, bytes]:
    """Return the address in a path as it was sent, and the rest; `BadAddress`.

    The rest begins with a slash, or is empty where the address has none at its end.
    """
    match = _PATH.fullmatch(raw)
    if match is None:
        raise BadAddress("an address has the form /p/{sandbox}/{port}/, without any escapes")
    sandbox, token, port, rest = match.groups()
    rest = rest or b""
    check_path(rest)
    return Address(
        sandbox.decode(), check_port(int(port)), None if token is None else token.decode()
    ), rest


def parse_host(host: str, domain: str) -> Address | None:
    """Return the address in a host name; None for the domain itself, and for names elsewhere.

    `host` is in lower case, without a port.  Raises `Misdirected` for any other name below the
    domain: nothing else is served there, and the API least of all.
    """
    if not host.endswith("." + domain):
        return None
    label = host[: -len(domain) - 1]
    match = _LABEL.fullmatch(label)
    if match is None or len(label) > _LONGEST_LABEL or not int(match[1]) <= 65_535:
        raise Misdirected(f"{label[:80]}.{domain} is no sandbox's port")
    sandbox, token = match[2], None
    if (tail := _TAIL.fullmatch(sandbox)) is not None:
        sandbox, token = tail[1], tail[2]
    return Address(sandbox, int(match[1]), token)


def check_path(raw: bytes) -> None:
    """Raise `BadAddress` for a path that leads out of what is before it, however it is escaped."""
    if raw and not raw.startswith(b"/"):
        raise BadAddress("a request names a path of this server")
    if b"." not in raw and b"%2" not in raw:
        return
    depth = 0
    for part in unquote_to_bytes(raw).replace(b"\\", b"/").split(b"/")[1:]:
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            raise BadAddress("the path leads out of its sandbox's port")


def check_port(port: int) -> int:
    """Return a number of a port; `BadAddress`."""
    if not 1 <= port <= 65_535:
        raise BadAddress(f"{port} is no port: those are 1 to 65535")
    return port
