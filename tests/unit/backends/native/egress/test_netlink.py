from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.native.egress.netlink import attribute, attributes

PARTS = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), max_size=5)


@given(PARTS)
def test_attributes_come_back_as_they_were_written(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, payload) for kind, payload in parts)
    assert len(data) % 4 == 0
    assert list(attributes(data)) == parts


@given(st.binary(max_size=64))
def test_reading_attributes_ends_whatever_they_say(data: bytes) -> None:
    assert len(list(attributes(data))) <= len(data) // 4


def test_an_attribute_is_padded_and_its_length_is_not() -> None:
    assert attribute(3, b"lo\0") == struct.pack("=HH", 7, 3) + b"lo\0\0"
