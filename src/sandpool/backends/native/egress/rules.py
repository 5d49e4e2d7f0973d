"""What a policy opens, as a decision and as a ruleset; pure.

An opening is a host and the ports on it.  Some ground is guarded: the host's own addresses, private
and link-local ranges, and what is no place at all.  An opening opens guarded ground only if it lies
within it: `0.0.0.0/0` opens neither 10.0.0.1 nor the host, `10.1.0.0/16` opens its part of 10/8
except what is the host's, and the host's own address has to be named itself.

    R1  The first step of `steps` that matches decides, and it decides what `is_open` says.
    R2  An address learnt from a name is never guarded ground when it is learnt, and stands behind
        the guards in the steps, should it become so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

Protocol = Literal["tcp", "udp"]

GUARDED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
"""Private, link-local and special ranges.  They are disjoint, which `steps` relies on."""

LINKS = IPv4Network("198.18.0.0/15")
"""Where the addresses of sandboxes and gates come from: the range for benchmarks, which no network
that somebody could want to reach uses."""
RESOLVER = IPv4Address("198.18.0.1")
"""The gate, as its sandboxes know it: their way out and their resolver."""

UPLINK = "up"
CABLE = "s"
"""What the name of a gate's end of a sandbox's cable begins with."""
FLOWS = 1_024
"""Connections of one sandbox at one time; the kernel's table of them is shared."""
QUESTIONS = 100
"""Packets of one sandbox to its resolver in a second: answering costs more than asking."""
LEARNED = 4_096
"""Addresses that the names of one opening may stand for at one time."""

_TABLE = "inet sandpool"


@dataclass(frozen=True, slots=True)
class Opening:
    """One thing that a policy allows."""

    network: IPv4Network | None
    """None: it is a name's."""
    name: str
    """A name, `*.` and a name for all below it, or `*` for all; empty for a network."""
    ports: tuple[tuple[int, int], ...]
    """First and last of each range; empty: all."""
    protocols: tuple[Protocol, ...]

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> Opening:
        """Read what `as_plain` has written."""
        network = plain["network"]
        return cls(
            IPv4Network(network) if network is not None else None,
            plain["name"],
            tuple((first, last) for first, last in plain["ports"]),
            tuple(plain["protocols"]),
        )

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can carry it."""
        return {
            "network": str(self.network) if self.network is not None else None,
            "name": self.name,
            "ports": [list(ports) for ports in self.ports],
            "protocols": list(self.protocols),
        }

    def admits(self, protocol: Protocol, port: int) -> bool:
        """Whether it allows this port of its host."""
        return protocol in self.protocols and (
            not self.ports or any(first <= port <= last for first, last in self.ports)
        )

    def names(self, name: str) -> bool:
        """Whether a name, in lower case and without a dot at its end, is one of its own."""
        if self.name == "*":
            return True
        if self.name.startswith("*."):
            return name.endswith(self.name[1:]) and len(name) >= len(self.name)
        return bool(self.name) and name == self.name


@dataclass(frozen=True, slots=True)
class Step:
    """One rule: what it matches, and whether that is let through."""

    is_open: bool
    opening: Opening | None = None
    """Its ports, and its network or what its names stand for; None: a guard."""
    learned: int | None = None
    """For the opening of a name: its number."""
    guards_host: bool = False
    """For a guard: whether it is of the host's addresses, or else of `GUARDED`."""


def steps(openings: Sequence[Opening]) -> list[Step]:
    """Return the rules of a policy in their order; what none of them matches is refused.

    The guard of the host's addresses does not name them, because they change: it stands between
    what is one address, and so within any guarded ground that it is in, and all the rest.
    """
    single: list[Step] = []
    inside: list[Step] = []
    outside: list[Step] = []
    for number, opening in enumerate(openings):
        if opening.network is None:
            outside.append(Step(True, opening, learned=number))
        elif opening.network.prefixlen == 32:
            single.append(Step(True, opening))
        elif any(opening.network.subnet_of(guarded) for guarded in GUARDED):
            inside.append(Step(True, opening))
        else:
            outside.append(Step(True, opening))
    return [*single, Step(False, guards_host=True), *inside, Step(False), *outside]


def is_open(
    openings: Iterable[Opening],
    address: IPv4Address,
    protocol: Protocol,
    port: int,
    *,
    host: Collection[IPv4Address],
) -> bool:
    """Whether a policy opens a port of an address; names apart.

    `host` has the host's own addresses.
    """
    return any(
        opening.admits(protocol, port) and _opens(opening, address, host) for opening in openings
    )


def is_guarded(address: IPv4Address, host: Collection[IPv4Address]) -> bool:
    """Whether an address is on guarded ground."""
    return address in host or any(address in guarded for guarded in GUARDED)


def is_listed(
    openings: Iterable[Opening], address: IPv4Address, host: Collection[IPv4Address]
) -> bool:
    """Whether some port of an address is open by the address itself."""
    return any(_opens(opening, address, host) for opening in openings)


def _opens(opening: Opening, address: IPv4Address, host: Collection[IPv4Address]) -> bool:
    if opening.network is None or address not in opening.network:
        return False
    if address in host and opening.network.prefixlen < 32:
        return False
    return all(opening.network.subnet_of(guarded) for guarded in GUARDED if address in guarded)


def gate_ruleset(openings: Sequence[Opening], host: Iterable[IPv4Address]) -> str:
    """Return the ruleset of a gate: default deny, from one sandbox to no other, IPv4 only."""
    sets = [_host_set(host), _set("guarded", "flags interval", map(str, GUARDED))]
    sets.append("set flows {\ntype ipv4_addr; size 65535; flags dynamic;\n}")
    sets.append("set asking {\ntype ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m;\n}")
    sets += [
        f"set name{number} {{\ntype ipv4_addr; size {LEARNED}; flags timeout;\n}}"
        for number, opening in enumerate(openings)
        if opening.network is None
    ]
    reject = "reject with icmpx type admin-prohibited"
    policy = [_rule(step, reject) for step in steps(openings)]
    from_cable = f'iifname "{CABLE}*"'
    # The address that a packet comes from is the one of the cable that it comes by.
    spoofed = "fib saddr . iif oif missing drop"
    return "\n".join(
        [
            f"table {_TABLE} {{",
            *sets,
            "chain input {",
            "type filter hook input priority filter; policy drop;",
            spoofed,
            f"ip daddr {RESOLVER} add @asking {{ ip saddr limit rate over {QUESTIONS}/second "
            f"burst {2 * QUESTIONS} packets }} drop",
            f"{from_cable} ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 accept",
            f"{from_cable} {reject}",
            "}",
            "chain forward {",
            "type filter hook forward priority filter; policy drop;",
            "ct state invalid drop",
            f'iifname "{UPLINK}" oifname "{CABLE}*" ct state established,related accept',
            f'iifname != "{CABLE}*" drop',
            spoofed,
            "meta nfproto != ipv4 drop",
            f'oifname != "{UPLINK}" {reject}',
            "ct state established,related accept",
            f"ct state new add @flows {{ ip saddr ct count over {FLOWS} }} {reject}",
            "jump listed",
            reject,
            "}",
            "chain listed {",
            *policy,
            "}",
            "chain postrouting {",
            "type nat hook postrouting priority srcnat;",
            f'oifname "{UPLINK}" masquerade',
            "}",
            "}",
        ]
    )


def host_ruleset(table: str, device: str, gate: IPv4Address, openings: Sequence[Opening]) -> str:
    """Return the ruleset that the host itself needs for a gate that a veth connects to it.

    `device` is the host's end of it, and `gate` the address at the other.

    The table is its owner's: the kernel removes it with the socket that made it.
    """
    listed = [
        _match(opening) + " accept"
        for opening in openings
        if opening.network is not None and opening.network.prefixlen == 32
    ]
    return "\n".join(
        [
            f"table inet {table} {{",
            "flags owner;",
            "chain input {",
            "type filter hook input priority filter - 5;",
            f'iifname != "{device}" accept',
            "ct state established,related accept",
            *listed,
            "drop",
            "}",
            "chain forward {",
            "type filter hook forward priority filter - 5;",
            f'oifname "{device}" ct state established,related accept',
            f'oifname "{device}" drop',
            "}",
            "chain postrouting {",
            "type nat hook postrouting priority srcnat;",
            f'ip saddr {gate} oifname != "{device}" masquerade',
            "}",
            "}",
        ]
    )


def host_update(host: Iterable[IPv4Address]) -> str:
    """Return what makes a gate's guard of the host's addresses this one, in one transaction."""
    commands = [f"flush set {_TABLE} host"]
    addresses = ", ".join(sorted(map(str, host)))
    if addresses:
        commands.append(f"add element {_TABLE} host {{ {addresses} }}")
    return "\n".join(commands)


def learn(number: int, addresses: Iterable[IPv4Address], seconds: int) -> str:
    """Return what lets the addresses of a name through, for so long."""
    plain = sorted(map(str, addresses))
    timed = ", ".join(f"{address} timeout {seconds}s" for address in plain)
    # One that is there keeps its time, so it has to go first; to go it has to be there.
    return "\n".join(
        [
            f"add element {_TABLE} name{number} {{ {', '.join(plain)} }}",
            f"delete element {_TABLE} name{number} {{ {', '.join(plain)} }}",
            f"add element {_TABLE} name{number} {{ {timed} }}",
        ]
    )


def _host_set(host: Iterable[IPv4Address]) -> str:
    return _set("host", "", map(str, host))


def _set(name: str, flags: str, members: Iterable[str]) -> str:
    elements = ", ".join(sorted(members))
    filled = f"\nelements = {{ {elements} }}" if elements else ""
    return f"set {name} {{\ntype ipv4_addr; {flags}{filled}\n}}"


def _rule(step: Step, reject: str) -> str:
    if step.opening is None:
        return f"ip daddr @{'host' if step.guards_host else 'guarded'} {reject}"
    return _match(step.opening, step.learned) + " accept"


def _match(opening: Opening, learned: int | None = None) -> str:
    where = f"@name{learned}" if opening.network is None else str(opening.network)
    words = [f"ip daddr {where} meta l4proto {{ {', '.join(opening.protocols)} }}"]
    if opening.ports:
        ranges = (
            f"{first}-{last}" if first < last else f"{first}" for first, last in _merged(opening)
        )
        words.append(f"th dport {{ {', '.join(ranges)} }}")
    return " ".join(words)


def _merged(opening: Opening) -> list[tuple[int, int]]:
    """Return its ranges of ports without overlaps, which nftables refuses in a set."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(opening.ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
