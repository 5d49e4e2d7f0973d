"""Links, addresses and routes by route netlink: what few messages a gate needs, and no program.

A socket belongs to the network namespace of the thread that opened it, whoever uses it later.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

ADDRESS_CHANGES = 0x10
ROUTE_CHANGES = 0x40

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 22, 24, 26
_REQUEST, _ACK, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 3, 18, 26, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 4, 0, 253, 1
_IFF_UP = 1
_AF_INET, _AF_INET6 = 2, 10
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_BUFFER = 1 << 18


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (kind, payload) of each attribute in `data`."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[length + (-length % 4) :]


def _name(name: str) -> bytes:
    return attribute(_IFLA_IFNAME, name.encode() + b"\0")


class RouteSocket:
    """A socket into the network namespace of the thread that makes it."""

    def __init__(self, groups: int = 0) -> None:
        """Open it; with `groups` it is told of those changes and is for nothing else."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, groups))
        self._sequence = 0

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def skip_news(self) -> None:
        """Read all that it has been told; that there was something is what counts."""
        try:
            while self._socket.recv(_BUFFER, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # so much that some of it was dropped
                raise

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send a request; return the (kind, body) of what comes before its end.  Raises OSError."""
        self._sequence += 1
        wanted = self._sequence
        flags |= _REQUEST | (0 if flags & _DUMP == _DUMP else _ACK)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, wanted, 0) + body)
        found: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(_BUFFER)
            while len(data) >= _HEADER.size:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                content, data = data[_HEADER.size : length], data[length + (-length % 4) :]
                if sequence != wanted:
                    continue
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    if number:
                        raise OSError(number, f"route netlink: {os.strerror(number)}")
                    return found
                found.append((kind, content))

    def index(self, name: str) -> int:
        """Return the index of a link."""
        found = self._ask(_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _name(name))
        index: int = _LINK.unpack_from(found[0][1])[2]
        return index

    def add_veth(self, name: str, peer: str, namespace: int) -> None:
        """Make a cable: one end here, the other, `peer`, in the namespace that is open there."""
        there = _LINK.pack(0, 0, 0, 0, 0) + _name(peer)
        there += attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
        info = attribute(_INFO_KIND, b"veth")
        info += attribute(_INFO_DATA, attribute(_VETH_PEER, there))
        body = _LINK.pack(0, 0, 0, 0, 0) + _name(name) + attribute(_IFLA_LINKINFO, info)
        self._ask(_NEWLINK, _CREATE | _EXCL, body)

    def remove(self, name: str) -> None:
        """Remove a link, and with it its peer; harmless if it has gone already."""
        try:
            self._ask(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _name(name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def set_up(self, index: int) -> None:
        """Bring a link up, without any IPv6 address of its own making."""
        mode = attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))
        spec = attribute(_IFLA_AF_SPEC, attribute(_AF_INET6, mode))
        try:
            self._ask(_NEWLINK, 0, _LINK.pack(0, 0, index, 0, 0) + spec)
        except OSError as error:
            # A kernel without IPv6, or with it turned off, makes no such addresses.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        self._ask(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))

    def add_address(self, index: int, address: IPv4Address, prefix: int) -> None:
        """Give a link an address."""
        body = _ADDRESS.pack(_AF_INET, prefix, 0, 0, index)
        body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
        self._ask(_NEWADDR, _CREATE | _EXCL, body)

    def add_route(
        self, index: int, target: IPv4Address | None, gateway: IPv4Address | None = None
    ) -> None:
        """Send what is for `target`, or all else, by a link, and to a gateway if there is one."""
        scope = _SCOPE_LINK if gateway is None else _SCOPE_UNIVERSE
        length = 0 if target is None else 32
        body = _ROUTE.pack(
            _AF_INET, length, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, scope, _UNICAST, 0
        )
        if target is not None:
            body += attribute(_RTA_DST, target.packed)
        body += attribute(_RTA_OIF, struct.pack("=I", index))
        if gateway is not None:
            body += attribute(_RTA_GATEWAY, gateway.packed)
        self._ask(_NEWROUTE, _CREATE | _EXCL, body)

    def local_addresses(self) -> set[IPv4Address]:
        """Return every IPv4 address of this namespace."""
        found: set[IPv4Address] = set()
        for kind, content in self._ask(_GETADDR, _DUMP, _ADDRESS.pack(_AF_INET, 0, 0, 0, 0)):
            if kind == _NEWADDR:
                values = dict(attributes(content[_ADDRESS.size :]))
                packed = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
                if packed is not None and len(packed) == 4:
                    found.add(IPv4Address(packed))
        return found

    def has_default_route(self) -> bool:
        """Whether there is a way for what no other route is for."""
        whole = _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for kind, content in self._ask(_GETROUTE, _DUMP, whole):
            if kind == _NEWROUTE:
                _, length, _, _, table, _, _, route_type, _ = _ROUTE.unpack_from(content)
                if length == 0 and table == _TABLE_MAIN and route_type == _UNICAST:
                    return True
        return False
