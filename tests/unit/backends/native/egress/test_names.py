from __future__ import annotations

from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.native.egress import names

ADDRESS = IPv4Address("203.0.113.5")


def asked(name: str, *, use_edns: bool = False) -> bytes:
    return dns.message.make_query(name, "A", use_edns=use_edns).to_wire()


@given(st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: asked("a.b")[:12] + tail))
def test_any_bytes_are_a_query_or_malformed(packet: bytes) -> None:
    try:
        query = names.parse(packet)
    except names.Malformed:
        return
    assert packet[12:].startswith(query.question)
    assert query.name is None or len(query.name) <= 253
    answer = names.reply(query, names.REFUSED)
    assert answer[:2] == packet[:2]
    assert len(answer) <= len(packet)


@given(st.binary(max_size=30), st.integers(0, 29))
def test_a_query_that_is_cut_or_has_a_byte_changed_does_no_harm(noise: bytes, place: int) -> None:
    packet = asked("files.pypi.test")
    for damaged in (packet[:place], packet[:place] + noise + packet[place + 1 :]):
        try:
            names.reply(names.parse(damaged), names.NO_ERROR, [ADDRESS])
        except names.Malformed:
            continue


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        asked("a.test")[:12],
        asked("a.test")[:-1],
        dns.message.make_response(dns.message.make_query("a.test", "A")).to_wire(),
        asked("a.test")[:4] + b"\0\2" + asked("a.test")[6:],
        asked("a.test")[:12] + b"\xc0\x0c\0\1\0\1",
        asked("a.test")[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        asked("a.test")[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
        bytes(5000),
    ],
    # Each packet begins with a random number, and workers have to agree on the tests' names.
    ids=(
        *("empty", "without its question", "cut", "an answer", "two questions", "a pointer"),
        *("a long label", "a long name", "too long"),
    ),
)
def test_what_is_no_query_is_malformed(packet: bytes) -> None:
    with pytest.raises(names.Malformed):
        names.parse(packet)


def test_a_name_is_read_in_lower_case() -> None:
    query = names.parse(asked("Files.PyPI.test"))
    assert (query.name, query.kind, query.fault) == ("files.pypi.test", names.A, names.NO_ERROR)


@pytest.mark.parametrize("name", [".", "-a.test", r"a\.b.test", r"a\000.test", r"\255.test", "a b"])
def test_a_name_that_no_host_has_is_refused(name: str) -> None:
    query = names.parse(asked(name))
    assert query.name is None
    assert query.fault == names.REFUSED


def test_only_questions_are_answered() -> None:
    message = dns.message.make_query("a.test", "A")
    message.set_opcode(dns.opcode.UPDATE)
    assert names.parse(message.to_wire()).fault == names.NOT_IMPLEMENTED
    chaos = dns.message.make_query("version.bind", "TXT", "CH")
    assert names.parse(chaos.to_wire()).fault == names.REFUSED


def test_an_answer_is_one_that_others_understand() -> None:
    packet = asked("Files.PyPI.test", use_edns=True)
    addresses = [ADDRESS + number for number in range(40)]
    answer = dns.message.from_wire(
        names.reply(names.parse(packet), names.NO_ERROR, addresses, ttl=30)
    )
    assert dns.message.from_wire(packet).is_response(answer)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.RA
    [records] = answer.answer
    assert records.ttl == 30
    assert {record.address for record in records} == set(map(str, addresses[:16]))
    assert len(answer.to_wire()) <= 512


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 60), (-5, 60), (300, 300), (1 << 31, 3_600)])
def test_how_long_an_address_is_open_is_bounded_both_ways(ttl: int, seconds: int) -> None:
    assert names.lifetime(ttl) == (seconds, seconds // 2)
