"""DNS as far as a gate's resolver speaks it: one question by a sandbox, and its answer; pure.

What comes from a sandbox is hostile.  Of a query only the header and its one question are read, by
a parser that goes forward only, and what comes after is ignored; a name with a pointer in it is
malformed, as a question has nothing to point at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

A, CLASS_IN = 1, 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = range(6)

MOST_ADDRESSES = 16
"""Addresses in an answer, which so always fits where every resolver can take it."""
MAX_QUERY = 4_096

SHORTEST, LONGEST = 60, 3_600
"""Seconds that an address is let through for, whatever its name's server says."""

_HEADER = struct.Struct("!6H")
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_OPCODE = 0x7800
_LABEL = re.compile(rb"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Malformed(Exception):
    """It is no query that could be answered, not even with an error."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question."""

    id: int
    flags: int
    name: str | None
    """In lower case, without a dot at its end; None: it has none that a host could have."""
    kind: int
    kind_class: int
    question: bytes
    """As it was asked, for the answer to repeat."""

    @property
    def fault(self) -> int:
        """What is wrong with it: a code of response, or `NO_ERROR`."""
        if self.flags & _OPCODE:
            return NOT_IMPLEMENTED
        if self.name is None or self.kind_class != CLASS_IN:
            return REFUSED
        return NO_ERROR


def parse(packet: bytes) -> Query:
    """Read a query; `Malformed`."""
    if not _HEADER.size < len(packet) <= MAX_QUERY:
        raise Malformed
    id_, flags, questions, _, _, _ = _HEADER.unpack_from(packet)
    if flags & _RESPONSE or questions != 1:
        raise Malformed
    labels: list[bytes] = []
    place = _HEADER.size
    while True:
        if place >= len(packet):
            raise Malformed
        length = packet[place]
        place += 1
        if not length:
            break
        label = packet[place : place + length]
        if length > 63 or len(label) < length or place + length - _HEADER.size > 254:
            raise Malformed
        labels.append(label.lower())
        place += length
    if place + 4 > len(packet):
        raise Malformed
    kind, kind_class = struct.unpack_from("!2H", packet, place)
    is_name = labels and all(map(_LABEL.fullmatch, labels))
    name = b".".join(labels).decode() if is_name else None
    return Query(id_, flags, name, kind, kind_class, packet[_HEADER.size : place + 4])


def reply(query: Query, code: int, addresses: Sequence[IPv4Address] = (), ttl: int = 0) -> bytes:
    """Return the answer to a query."""
    flags = _RESPONSE | _RECURSION_AVAILABLE | (query.flags & (_OPCODE | _RECURSION_DESIRED)) | code
    shown = addresses[:MOST_ADDRESSES]
    record = struct.pack("!3HIH", 0xC000 | _HEADER.size, A, CLASS_IN, ttl, 4)
    head = _HEADER.pack(query.id, flags, 1, len(shown), 0, 0)
    return head + query.question + b"".join(record + address.packed for address in shown)


def lifetime(ttl: int) -> tuple[int, int]:
    """Return the seconds for which an address is let through, and those that the answer tells.

    A client that believes the answer asks again well before the address is closed to it.
    """
    seconds = min(max(ttl, SHORTEST), LONGEST)
    return seconds, seconds // 2
