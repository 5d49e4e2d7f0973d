"""Arrivals come from their seed alone, and saturation is told from time alone."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from sandpool.bench.arrivals import is_saturated, poisson, rates_to_try

rates = st.floats(0.1, 500)
spans = st.floats(0.1, 10)
seeds = st.integers(0, 2**31)


@given(rates, spans, seeds)
def test_the_same_seed_gives_the_same_arrivals(rate: float, seconds: float, seed: int) -> None:
    assert poisson(rate, seconds, seed) == poisson(rate, seconds, seed)


@given(rates, spans, seeds)
def test_arrivals_are_in_order_and_within_their_time(
    rate: float, seconds: float, seed: int
) -> None:
    starts = poisson(rate, seconds, seed)
    assert starts == sorted(starts)
    assert starts
    assert all(0 <= start <= seconds for start in starts)


@given(st.floats(1, 500), seeds)
def test_as_many_come_as_the_rate_says(rate: float, seed: int) -> None:
    expected = 2_000
    found = len(poisson(rate, expected / rate, seed))
    assert abs(found - expected) < 7 * math.sqrt(expected)


@given(rates, seeds)
def test_gaps_are_those_of_a_poisson_process(rate: float, seed: int) -> None:
    starts = poisson(rate, 4_000 / rate, seed)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # A share of 1/e of exponential gaps is longer than their mean; of even ones none, or all.
    longer = sum(gap > 1 / rate for gap in gaps) / len(gaps)
    assert abs(longer - math.exp(-1)) < 0.06


@given(spans, st.floats(0, 100))
def test_what_is_never_served_is_too_much(seconds: float, took: float) -> None:
    assert is_saturated(seconds=seconds, took=took, unserved=1)


@given(spans)
def test_what_is_served_as_it_comes_is_not_too_much(seconds: float) -> None:
    assert not is_saturated(seconds=seconds, took=seconds, unserved=0)
    assert is_saturated(seconds=seconds, took=2 * seconds + 1, unserved=0)


def test_rates_rise_until_the_highest() -> None:
    assert rates_to_try((100, 1), 100, 350) == [1, 100, 200, 300]
    assert rates_to_try((10, 100), 100, 50) == [10, 100]
