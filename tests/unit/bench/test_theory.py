"""Theory agrees with the tables of queueing theory, and with itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.bench.theory import (
    burst_deviation,
    burst_wait,
    miss_with_enough_builders,
    miss_with_few_builders,
)


@pytest.mark.parametrize(
    ("rate", "lead", "percent", "stock"),
    [
        (100, 0.002, 1, 3),
        (100, 0.002, 0.1, 4),
        (300, 0.002, 0.1, 5),
        (100, 0.05, 1, 12),
        (100, 0.15, 0.01, 32),
        (100, 0.5, 1, 68),
        (1_000, 0.15, 0.1, 190),
    ],
)
def test_a_stock_is_the_least_that_keeps_misses_below_a_share(
    rate: float, lead: float, percent: float, stock: int
) -> None:
    assert miss_with_enough_builders(rate, lead, stock) <= percent / 100
    assert miss_with_enough_builders(rate, lead, stock - 1) > percent / 100


@pytest.mark.parametrize(
    ("load", "percent", "stock"), [(0.5, 1, 7), (0.7, 1, 13), (0.8, 0.1, 31), (0.95, 1, 90)]
)
def test_few_builders_need_the_stock_of_the_table(load: float, percent: float, stock: int) -> None:
    assert miss_with_few_builders(load * 100, 100, stock) <= percent / 100
    assert miss_with_few_builders(load * 100, 100, stock - 1) > percent / 100


@given(st.floats(0.1, 1_000), st.floats(0, 2), st.integers(0, 300))
def test_more_stock_never_has_more_misses(rate: float, lead: float, stock: int) -> None:
    less = miss_with_enough_builders(rate, lead, stock)
    more = miss_with_enough_builders(rate, lead, stock + 1)
    assert 0 <= more <= less + 1e-9 <= 1 + 2e-9


@given(st.integers(1, 500), st.integers(0, 200), st.floats(1, 1_000))
def test_who_meets_stock_does_not_wait_and_the_others_wait_in_turn(
    place: int, stock: int, builds: float
) -> None:
    wait = burst_wait(place, stock, builds)
    assert (wait == 0) == (place <= stock)
    if place > stock:
        assert burst_wait(place + 1, stock, builds) - wait == pytest.approx(1 / builds)


@given(st.integers(2, 100), st.integers(0, 50), st.floats(1, 1_000), st.floats(-0.9, 3))
def test_waits_that_are_all_off_by_one_share_are_that_far_from_theory(
    burst: int, stock: int, builds: float, off: float
) -> None:
    waits = [(1 + off) * burst_wait(place, stock, builds) for place in range(1, burst + 1)]
    expected = abs(off) if burst > stock else 0
    assert burst_deviation(waits, stock, builds) == pytest.approx(expected)
