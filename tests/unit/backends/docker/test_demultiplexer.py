"""A container's output, however the engine cuts it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.docker.demultiplexer import Demultiplexer
from sandpool.guest.frames import FrameError


def framed(stream: int, payload: bytes) -> bytes:
    return struct.pack(">B3xI", stream, len(payload)) + payload


@given(
    pieces=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=20),
    cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=20),
)
def test_standard_output_comes_whole_wherever_it_is_cut(
    pieces: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(framed(stream, payload) for stream, payload in pieces)
    demultiplexer = Demultiplexer()
    found, at, turn = b"", 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found += demultiplexer.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == b"".join(payload for stream, payload in pieces if stream == 1)
    errors = b"".join(payload for stream, payload in pieces if stream == 2)
    assert demultiplexer.errors == errors.decode("utf-8", "replace").strip()


def test_of_standard_error_only_the_end_is_kept() -> None:
    demultiplexer = Demultiplexer()
    for _ in range(100):
        assert demultiplexer.feed(framed(2, b"x" * 1000)) == b""
    demultiplexer.feed(framed(2, b"the end"))
    assert len(demultiplexer.errors) == 4096
    assert demultiplexer.errors.endswith("xthe end")


@pytest.mark.parametrize("head", [b"\3\0\0\0\0\0\0\1", b"\1\0\0\0\xff\xff\xff\xff", b"HTTP/1.1"])
def test_what_is_no_frame_is_refused(head: bytes) -> None:
    with pytest.raises(FrameError):
        Demultiplexer().feed(head)
