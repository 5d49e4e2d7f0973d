from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import dns.message
import dns.rcode
import pytest

from sandpool.backends.native.egress import names
from sandpool.backends.native.egress.resolver import Found, NoAnswer, Resolver
from sandpool.backends.native.egress.rules import Opening

pytestmark = pytest.mark.anyio

HOST = IPv4Address("192.0.2.10")
PUBLIC, OTHER = IPv4Address("203.0.113.5"), IPv4Address("203.0.113.6")
PRIVATE = IPv4Address("10.1.2.3")
OPENINGS = [
    Opening(None, "pypi.test", ((443, 443),), ("tcp",)),
    Opening(None, "*.pypi.test", (), ("tcp",)),
    Opening(IPv4Network("10.0.0.0/8"), "", (), ("tcp",)),
    Opening(None, "*.test", ((80, 80),), ("tcp",)),
]


class Upstream:
    """The host's resolvers, and a gate that remembers what it was told to open."""

    def __init__(self, *addresses: IPv4Address, ttl: int = 300) -> None:
        self.found = Found(list(addresses), ttl)
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.learned: list[tuple[int, list[IPv4Address], int]] = []
        self.is_full = False

    async def ask(self, name: str) -> Found:
        self.asked.append(name)
        if self.failure is not None:
            raise self.failure
        return self.found

    def learn(self, number: int, addresses: Sequence[IPv4Address], seconds: int) -> None:
        if self.is_full:
            raise OSError("nftables: no room")
        self.learned.append((number, list(addresses), seconds))

    async def answer(
        self, name: str, kind: str = "A", openings: Sequence[Opening] = OPENINGS
    ) -> tuple[int, list[str], int]:
        resolver = Resolver(openings, host=lambda: {HOST}, learn=self.learn, ask=self.ask)
        packet = await resolver.answer(dns.message.make_query(name, kind).to_wire())
        assert packet is not None
        message = dns.message.from_wire(packet)
        if not message.answer:
            return message.rcode(), [], 0
        [records] = message.answer
        return message.rcode(), [record.address for record in records], records.ttl


async def test_a_listed_name_is_opened_before_it_is_answered() -> None:
    upstream = Upstream(PUBLIC, OTHER)
    assert await upstream.answer("pypi.test") == (0, [str(PUBLIC), str(OTHER)], 150)
    assert upstream.learned == [(0, [PUBLIC, OTHER], 300), (3, [PUBLIC, OTHER], 300)]


async def test_a_name_that_is_not_listed_is_refused_and_not_asked_for() -> None:
    upstream = Upstream(PUBLIC)
    assert (await upstream.answer("example.com"))[0] == dns.rcode.REFUSED
    assert upstream.asked == []
    assert upstream.learned == []


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "ANY", "HTTPS"])
async def test_a_listed_name_has_nothing_but_addresses(kind: str) -> None:
    upstream = Upstream(PUBLIC)
    assert await upstream.answer("pypi.test", kind) == (dns.rcode.NOERROR, [], 0)
    assert upstream.asked == []


@pytest.mark.parametrize(
    "address", [HOST, IPv4Address("169.254.169.254"), IPv4Address("127.0.0.1")]
)
async def test_a_guarded_address_is_left_out(address: IPv4Address) -> None:
    upstream = Upstream(address, PUBLIC)
    assert (await upstream.answer("www.pypi.test"))[:2] == (0, [str(PUBLIC)])
    assert all(address not in addresses for _, addresses, _ in upstream.learned)


async def test_a_name_with_guarded_addresses_only_is_refused() -> None:
    upstream = Upstream(HOST)
    assert (await upstream.answer("www.pypi.test"))[0] == dns.rcode.REFUSED
    assert upstream.learned == []


async def test_a_guarded_address_that_is_listed_itself_is_told_and_not_opened() -> None:
    upstream = Upstream(PRIVATE)
    assert (await upstream.answer("www.pypi.test"))[:2] == (0, [str(PRIVATE)])
    assert upstream.learned == []


@pytest.mark.parametrize("code", [names.NO_SUCH_NAME, names.SERVER_FAILURE])
async def test_what_the_hosts_resolvers_do_not_know_is_passed_on(code: int) -> None:
    upstream = Upstream()
    upstream.failure = NoAnswer(code)
    assert (await upstream.answer("pypi.test"))[0] == code


async def test_a_name_without_addresses_is_none() -> None:
    assert await Upstream().answer("pypi.test") == (dns.rcode.NOERROR, [], 0)


async def test_an_address_that_finds_no_room_is_not_told() -> None:
    upstream = Upstream(PUBLIC)
    upstream.is_full = True
    assert await upstream.answer("pypi.test") == (dns.rcode.SERVFAIL, [], 0)


async def test_what_is_malformed_gets_no_answer() -> None:
    upstream = Upstream(PUBLIC)
    resolver = Resolver(OPENINGS, host=set, learn=upstream.learn, ask=upstream.ask)
    assert await resolver.answer(b"\xff" * 40) is None
