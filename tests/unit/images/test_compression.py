"""Compressed streams give what was put in, a bounded piece at a time, or are refused."""

from __future__ import annotations

import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import ImageRefused
from sandpool.images.compression import Bounded, Hashed, expanded
from sandpool.images.manifest import digest_of
from sandpool.tar import Stream

zstandard = pytest.importorskip("zstandard")


def zstd(data: bytes) -> bytes:
    packed: bytes = zstandard.ZstdCompressor().compress(data)
    return packed


KINDS: list[Callable[[bytes], bytes]] = [gzip.compress, lzma.compress, zstd]


def drain(stream: Stream, size: int = 1000) -> bytes:
    found = b""
    while data := stream.read(size):
        assert len(data) <= size
        found += data
    return found


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=3), st.sampled_from(KINDS))
def test_several_members_are_read_as_one(
    parts: list[bytes], pack: Callable[[bytes], bytes]
) -> None:
    packed = b"".join(pack(part) for part in parts)
    assert drain(expanded(io.BytesIO(packed))) == b"".join(parts)


@given(st.binary(max_size=100))
def test_what_is_not_compressed_stays_as_it_is(data: bytes) -> None:
    if not data.startswith((b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")):
        assert drain(expanded(io.BytesIO(data))) == data


@pytest.mark.parametrize("pack", KINDS)
def test_a_bomb_is_read_in_small_pieces_and_refused_at_its_bound(
    pack: Callable[[bytes], bytes],
) -> None:
    stream = Bounded(expanded(io.BytesIO(pack(bytes(10_000_000)))), 1_000_000, "it")
    with pytest.raises(ImageRefused, match="larger"):
        drain(stream, 65536)


@pytest.mark.parametrize("pack", KINDS)
def test_a_stream_that_is_changed_is_refused(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(random.Random(0).randbytes(100_000))
    with pytest.raises(ImageRefused):
        drain(expanded(io.BytesIO(packed[:6] + b"\xff" * 300 + packed[306:])))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_stream_that_is_cut_off_is_refused(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(random.Random(0).randbytes(100_000))
    with pytest.raises(ImageRefused):
        drain(expanded(io.BytesIO(packed[: len(packed) // 2])))


def test_padding_after_the_last_member_is_none_of_the_content() -> None:
    assert drain(expanded(io.BytesIO(gzip.compress(b"x") + bytes(700)))) == b"x"
    with pytest.raises(ImageRefused):
        drain(expanded(io.BytesIO(gzip.compress(b"x") + b"rest")))


@given(st.binary(max_size=2000))
def test_what_has_been_read_has_its_digest(data: bytes) -> None:
    stream = Hashed(io.BytesIO(data))
    drain(stream, 7)
    assert stream.digest == digest_of(data)


@given(st.binary(max_size=50), st.integers(0, 60))
def test_a_bound_lets_through_exactly_what_it_may(data: bytes, most: int) -> None:
    stream = Bounded(io.BytesIO(data), most, "it")
    if len(data) <= most:
        assert drain(stream, 7) == data
    else:
        with pytest.raises(ImageRefused):
            drain(stream, 7)
