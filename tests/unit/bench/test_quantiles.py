"""What the statistics promise for any samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.bench.quantiles import (
    distance,
    distribution,
    jain,
    latencies,
    median,
    quantile,
    steady,
)

seconds = st.floats(0, 100, allow_subnormal=False)
samples = st.lists(seconds, min_size=1, max_size=200)


@given(samples, st.floats(0, 1))
def test_a_quantile_is_a_sample_with_its_share_at_or_below(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    below = [value for value in values if value < found]
    assert len(below) < share * len(values) or not below


def test_the_ninety_ninth_of_a_hundred_is_not_the_last() -> None:
    (p99,) = [f for f in latencies("x", [[n / 1e3 for n in range(1, 101)]]) if f.name == "x, p99"]
    assert p99.value == pytest.approx(99)
    assert p99.n == 100


@given(st.integers(1, 3), st.integers(3_000, 4_000))
def test_one_in_a_thousand_is_told_only_of_ten_thousand(repeats: int, count: int) -> None:
    names = {figure.name for figure in latencies("x", [[0.001] * count] * repeats)}
    assert ("x, p99.9" in names) == (repeats * count >= 10_000)


@given(st.lists(samples, min_size=1, max_size=4))
def test_a_figure_lies_within_the_spread_of_its_repeats(repeats: list[list[float]]) -> None:
    for figure in latencies("x", repeats):
        assert figure.n == sum(map(len, repeats))
        assert len(figure.repeats) == len(repeats)
        if figure.spread is not None:
            least, most = figure.spread
            assert least <= figure.value <= most


@given(st.lists(seconds, min_size=1, max_size=9))
def test_the_median_of_repeats_is_one_of_them(values: list[float]) -> None:
    figure = steady("x", values, "/s")
    assert figure.value == median(values)
    assert figure.value in values
    assert figure.repeats == tuple(values)


def test_nothing_is_said_of_nothing() -> None:
    assert latencies("x", []) == []
    assert latencies("x", [[], []]) == []


def test_a_repeat_without_samples_does_not_count() -> None:
    (p50, *_) = latencies("x", [[0.001], []], goals={"p50": "hand-over-p50"})
    assert (p50.value, p50.repeats, p50.goal) == (1.0, (1.0,), "hand-over-p50")


@given(samples)
def test_a_distribution_rises_to_all_samples(values: list[float]) -> None:
    x, y = distribution(values)
    assert len(x) == len(y) <= 60
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)
    assert (x[-1], y[-1]) == (max(values) * 1e3, 1.0)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=20))
def test_the_index_of_fairness_lies_between_one_for_all_and_one_in_n(shares: list[float]) -> None:
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9


@given(st.integers(1, 20), st.floats(0.01, 1e6))
def test_even_shares_are_fair_and_one_taker_is_not(count: int, share: float) -> None:
    assert jain([share] * count) == pytest.approx(1)
    assert jain([share] + [0.0] * (count - 1)) == pytest.approx(1 / count)
    assert jain([0.0] * count) == 1


@given(st.lists(st.floats(0.001, 1e3), min_size=1, max_size=50), st.floats(-0.9, 3))
def test_a_curve_that_is_off_by_one_share_is_that_far_away(
    expected: list[float], off: float
) -> None:
    measured = [(1 + off) * value for value in expected]
    assert distance(measured, expected) == pytest.approx(abs(off), abs=1e-9)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_where_nothing_is_expected_nothing_is_far(measured: list[float]) -> None:
    assert distance(measured, [0.0] * len(measured)) == 0
