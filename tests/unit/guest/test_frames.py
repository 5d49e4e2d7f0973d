"""The wire format, fed whole, in pieces, and with what no well-meaning peer would send."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandpool.guest import frames

Frame = tuple[int, int, bytes]

SIDES = [frames.FROM_HOST, frames.FROM_GUEST]
REQUESTS = st.integers(1, 0xFFFF_FFFF)


def frames_of(kinds: Iterable[int]) -> st.SearchStrategy[list[Frame]]:
    frame = st.tuples(REQUESTS, st.sampled_from(sorted(kinds)), st.binary(max_size=300))
    return st.lists(frame, max_size=12)


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=40)


@settings(max_examples=60)
@given(given_frames=frames_of(frames.FROM_GUEST), cuts=CUTS)
def test_frames_survive_being_cut_into_any_pieces(
    given_frames: list[Frame], cuts: list[int]
) -> None:
    stream = b"".join(frames.encode(*frame) for frame in given_frames)
    decoder = frames.Decoder(frames.FROM_GUEST)
    decoded = [frame for piece in pieces(stream, cuts) for frame in decoder.feed(piece)]
    assert decoded == given_frames


@settings(max_examples=60)
@given(given_frames=frames_of(frames.FROM_HOST))
def test_a_frame_comes_out_with_its_last_byte_and_not_before(given_frames: list[Frame]) -> None:
    decoder = frames.Decoder(frames.FROM_HOST)
    for frame in given_frames:
        packet = frames.encode(*frame)
        assert decoder.feed(packet[:-1]) == []
        assert decoder.feed(packet[-1:]) == [frame]


@pytest.mark.parametrize("side", SIDES, ids=["host", "guest"])
@given(garbage=st.binary(max_size=2048), cuts=CUTS)
@example(garbage=b"\xff" * 9, cuts=[])
@example(garbage=frames.HEADER.pack(frames.MAX_PAYLOAD, 1, frames.DATA), cuts=[])
def test_any_bytes_decode_or_are_refused(
    side: frozenset[int], garbage: bytes, cuts: list[int]
) -> None:
    decoder = frames.Decoder(side)
    decoded: list[Frame] = []
    try:
        for piece in pieces(garbage, cuts):
            decoded += decoder.feed(piece)
    except frames.FrameError:
        pass
    assert all(request > 0 and kind in side for request, kind, _ in decoded)
    # What came out is what went in: nothing is made up, skipped or put in another order.
    assert garbage.startswith(b"".join(frames.encode(*frame) for frame in decoded))


def held_by(decoder: frames.Decoder) -> int:
    """Return the bytes in all that a decoder keeps, whatever it calls it."""
    kept = (getattr(decoder, name) for name in decoder.__slots__)
    return sum(len(value) for value in kept if isinstance(value, bytearray | bytes))


@settings(max_examples=30)
@given(
    start=st.integers(0, len(frames.FROM_GUEST) - 1),
    length=st.integers(frames.MAX_PAYLOAD - 2, frames.MAX_PAYLOAD),
    ahead=st.integers(1, frames.CHUNK),
)
def test_no_more_than_one_frame_is_ever_held(start: int, length: int, ahead: int) -> None:
    kind = sorted(frames.FROM_GUEST)[start]
    decoder = frames.Decoder(frames.FROM_GUEST)
    packet = frames.encode(1, kind, bytes(length))
    stream = packet * 2 + packet[:-1]
    for at in range(0, len(stream), ahead + frames.CHUNK):
        decoder.feed(stream[at : at + ahead + frames.CHUNK])
        assert held_by(decoder) < frames.HEADER.size + frames.MAX_PAYLOAD
    assert held_by(decoder) == len(packet) - 1


def test_a_refused_length_is_refused_before_its_bytes_are_waited_for() -> None:
    decoder = frames.Decoder(frames.FROM_GUEST)
    with pytest.raises(frames.FrameError, match="over the limit"):
        decoder.feed(frames.HEADER.pack(frames.MAX_PAYLOAD + 1, 1, frames.DATA))


def test_the_largest_frame_passes_both_ways() -> None:
    payload = bytes(frames.MAX_PAYLOAD)
    packet = frames.encode(0xFFFF_FFFF, frames.DATA, payload)
    decoded = frames.Decoder(frames.FROM_HOST).feed(packet)
    assert decoded == [(0xFFFF_FFFF, frames.DATA, payload)]


def test_a_frame_over_the_limit_is_never_sent() -> None:
    with pytest.raises(frames.FrameError):
        frames.encode(1, frames.DATA, bytes(frames.MAX_PAYLOAD + 1))
    with pytest.raises(frames.FrameError):
        frames.encode_json(1, frames.REQUEST, {"code": "x" * frames.MAX_PAYLOAD})


@pytest.mark.parametrize("side", SIDES, ids=["host", "guest"])
def test_exactly_the_kinds_of_a_side_are_taken_from_it(side: frozenset[int]) -> None:
    for kind in range(256):
        packet = frames.HEADER.pack(0, 1, kind)
        if kind in side:
            assert frames.Decoder(side).feed(packet) == [(1, kind, b"")]
        else:
            with pytest.raises(frames.FrameError):
                frames.Decoder(side).feed(packet)


def test_the_request_zero_is_refused() -> None:
    with pytest.raises(frames.FrameError):
        frames.Decoder(frames.FROM_HOST).feed(frames.HEADER.pack(0, 0, frames.DATA))


@given(cut=st.integers(0, frames.HEADER.size - 1))
def test_nothing_is_refused_before_its_header_is_whole(cut: int) -> None:
    header = frames.HEADER.pack(0xFFFF_FFFF, 0, 0xFF)
    assert frames.Decoder(frames.FROM_HOST).feed(header[:cut]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=30)
@given(value=st.dictionaries(st.text(), JSON, max_size=3))
@example(value={"lone surrogate": "\ud800", "nul": "\0"})
def test_json_arrives_as_it_was_sent(value: dict[str, object]) -> None:
    packet = frames.encode_json(3, frames.REQUEST, value)
    [(_, _, payload)] = frames.Decoder(frames.FROM_HOST).feed(packet)
    assert frames.decode_json(payload) == value


PAYLOADS = st.binary(max_size=200) | st.one_of(st.text(), JSON.map(json.dumps)).map(str.encode)


@given(payload=PAYLOADS)
@example(payload=b"[" * 100_000)
@example(payload=b'{"a":' * 40_000)
@example(payload=b"9" * 10_000)
@example(payload=b'{"a": ' + b"9" * 10_000 + b"}")
@example(payload=b"\xff\xfe{\x00}\x00")
@example(payload=b"{}" + b" " * frames.MAX_CONTROL)
def test_any_control_payload_is_an_object_or_refused(payload: bytes) -> None:
    try:
        value = frames.decode_json(payload)
    except frames.FrameError:
        return
    assert json.loads(payload.decode("utf-8", "surrogatepass")) == value


@given(count=st.integers(0, 0xFFFF_FFFF))
def test_credit_arrives_as_it_was_granted(count: int) -> None:
    [(request, kind, payload)] = frames.Decoder(frames.FROM_HOST).feed(
        frames.encode_credit(9, count)
    )
    assert (request, kind, frames.decode_credit(payload)) == (9, frames.CREDIT, count)


@given(payload=st.binary(max_size=64).filter(lambda payload: len(payload) != 4))
def test_credit_of_another_size_is_refused(payload: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode_credit(payload)
