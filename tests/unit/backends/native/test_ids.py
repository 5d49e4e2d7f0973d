"""Ranges of host ids: never the same one twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.native.ids import RANGE, IdRanges


@given(st.lists(st.booleans(), max_size=200))
def test_no_two_live_sandboxes_share_a_range(steps: list[bool]) -> None:
    ranges = IdRanges()
    held: list[int] = []
    try:
        for take in steps:
            if take or not held:
                first = ranges.take()
                assert all(abs(first - other) >= RANGE for other in held)
                held.append(first)
            else:
                ranges.give_back(held.pop(0))
    finally:
        ranges.close()


def test_two_managers_on_one_host_have_different_ranges() -> None:
    one, two = IdRanges(), IdRanges()
    try:
        first = {one.take() for _ in range(80)}
        second = {two.take() for _ in range(80)}
        assert not first & second
    finally:
        one.close()
        two.close()
