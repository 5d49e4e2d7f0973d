"""How a gate reaches the host's network: by a veth, by pasta or by slirp4netns.

As root a veth, where the host forwards packets and no chain of its firewall drops them; it needs
a table of ours on the host and changes no setting.  Else, and for an ordinary user always, pasta or
slirp4netns, which make ordinary connections from the host's network.  `choose` decides, and says
what is missing where there is no way: there is no other to fall back to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from sandpool.backends.native.egress import rules

Kind = Literal["veth", "pasta", "slirp4netns"]

_TUN = "/dev/net/tun"
_INSTALL = "apt-get install passt (or slirp4netns)"

PROGRAM_SIDE = IPv4Address("198.19.0.1")
"""The far end of a gate's uplink where a program is the uplink."""
PROGRAM_GATE = IPv4Address("198.19.0.2")
_SLIRP_NETWORK = "198.19.0.0/24"


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is on a host."""

    is_root: bool
    forwards: bool = False
    """Whether its kernel forwards packets at all."""
    dropping: str | None = None
    """The first chain of its firewall that drops what is forwarded and not known to it."""
    programs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where pasta and slirp4netns are, as far as they are installed."""
    has_tun: bool = False
    """Whether this user may open /dev/net/tun."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be used, or why there is nothing."""

    kind: Kind | None
    program: str | None = None
    problem: str | None = None


def choose(facts: Facts) -> Choice:
    """Return the way that a gate has to the network of a host."""
    against: list[str] = []
    if facts.is_root:
        if facts.forwards and facts.dropping is None:
            return Choice("veth")
        against.append(
            f"its firewall drops what it forwards ({facts.dropping})"
            if facts.forwards
            else "it does not forward packets (sysctl -w net.ipv4.ip_forward=1)"
        )
    for kind in ("pasta", "slirp4netns"):
        if kind in facts.programs and facts.has_tun:
            return Choice(kind, facts.programs[kind])
    if not facts.programs:
        against.append(f"neither pasta nor slirp4netns is installed ({_INSTALL})")
    elif not facts.has_tun:
        against.append(f"this user may not open {_TUN} (as root: chmod 0666 {_TUN})")
    return Choice(None, problem=f"this host gives no way out: {'; and '.join(against)}")


def look(is_root: bool, chains: Iterable[Mapping[str, Any]]) -> Facts:
    """Look at this host; `chains` are those of its firewall, as far as they can be seen."""
    programs = {name: shutil.which(name) for name in ("pasta", "slirp4netns")}
    return Facts(
        is_root=is_root,
        forwards=_read("/proc/sys/net/ipv4/ip_forward") == "1",
        dropping=find_dropping(chains),
        programs={name: path for name, path in programs.items() if path is not None},
        has_tun=os.access(_TUN, os.R_OK | os.W_OK),
    )


def find_dropping(chains: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the first chain that drops what is forwarded unless it is told otherwise."""
    for chain in chains:
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            return f"table {chain.get('family')} {chain.get('table')}, chain {chain.get('name')}"
    return None


def command(choice: Choice) -> list[str]:
    """Return the command line of an uplink that is a program.

    Its standard input is the gate's namespace: the one descriptor that all versions of them keep.
    Both get neither the host's loopback nor a port of the host, and forward nothing inwards.
    """
    assert choice.program is not None
    if choice.kind == "slirp4netns":
        return [
            choice.program,
            "--configure",
            "--netns-type=path",
            f"--cidr={_SLIRP_NETWORK}",
            "--disable-host-loopback",
            "--disable-dns",
            "/proc/self/fd/0",
            rules.UPLINK,
        ]
    nothing = [part for option in ("-t", "-u", "-T", "-U") for part in (option, "none")]
    return [
        choice.program,
        "--foreground",
        "--quiet",
        "--ipv4-only",
        "--runas=0",
        "--netns-only",
        "--netns=/proc/self/fd/0",
        "--no-netns-quit",
        "--config-net",
        f"--ns-ifname={rules.UPLINK}",
        f"--address={PROGRAM_GATE}",
        "--netmask=30",
        f"--gateway={PROGRAM_SIDE}",
        "--no-map-gw",
        "--no-dhcp",
        "--no-icmp",
        *nothing,
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
