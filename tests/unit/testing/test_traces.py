"""Arrivals and times from a seed: the same each time, in order, and as often as was asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.testing import Step, Time, exponential, fixed, lognormal, theory, traces

Trace = Callable[[int], Iterator[float]]


def poisson(seed: int) -> Iterator[float]:
    return traces.poisson(100.0, seed)


def bursts(seed: int) -> Iterator[float]:
    return traces.bursts(calm=0.0, busy=600.0, calm_seconds=1.0, busy_seconds=0.2, seed=seed)


def diurnal(seed: int) -> Iterator[float]:
    return traces.diurnal(100.0, 1.0, 10.0, seed)


every_trace = pytest.mark.parametrize("trace", [poisson, bursts, diurnal])


@every_trace
@given(seed=st.integers())
def test_time_never_goes_back_and_a_seed_decides_everything(trace: Trace, seed: int) -> None:
    first = list(itertools.islice(trace(seed), 200))
    assert first == sorted(first)
    assert first[0] > 0
    assert first == list(itertools.islice(trace(seed), 200))
    assert first != list(itertools.islice(trace(seed + 1), 200))


@every_trace
def test_as_many_come_as_the_rate_says(trace: Trace) -> None:
    seconds = 1_000.0
    come = sum(1 for _ in itertools.takewhile(lambda when: when < seconds, trace(1)))
    assert come == pytest.approx(100 * seconds, rel=0.1)


def _counts(trace: Trace, seconds: int) -> list[int]:
    counts = [0] * seconds
    for when in itertools.takewhile(lambda when: when < seconds, trace(1)):
        counts[int(when)] += 1
    return counts


def _dispersion(counts: list[int]) -> float:
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / len(counts) / mean


def test_bursts_are_far_more_uneven_than_chance() -> None:
    assert _dispersion(_counts(poisson, 1_000)) == pytest.approx(1, rel=0.2)
    assert _dispersion(_counts(bursts, 1_000)) > 20


def test_a_day_has_its_peak_and_its_night() -> None:
    counts = _counts(diurnal, 1_000)
    by_hour = [sum(counts[hour::10]) for hour in range(10)]
    # Highest a quarter into the period, lowest at three quarters.
    assert {by_hour.index(max(by_hour)), by_hour.index(min(by_hour))} <= {1, 2, 3, 6, 7, 8}
    assert max(by_hour) > 10 * min(by_hour)


@pytest.mark.parametrize(
    ("time", "mean"),
    [(fixed(2.0), 2.0), (exponential(2.0), 2.0), (lognormal(1.0, 10.240), 1.632)],
)
def test_times_are_what_was_asked_for_in_the_mean(time: Time, mean: float) -> None:
    random = Random(1)
    drawn = [time(random) for _ in range(50_000)]
    assert min(drawn) >= 0
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)


def test_a_step_fails_as_often_as_was_asked() -> None:
    random = Random(1)
    step = Step(fixed(0.0), failures=0.25)
    assert sum(step.draw(random)[1] for _ in range(10_000)) == pytest.approx(2_500, rel=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fixed(-1.0),
        lambda: fixed(float("nan")),
        lambda: exponential(0.0),
        lambda: lognormal(2.0, 1.0),
        lambda: Step(failures=1.5),
        lambda: next(traces.diurnal(1.0, 1.5, 1.0, 0)),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        make()


@pytest.mark.parametrize(
    ("mean", "misses", "stock"),
    [(0.2, 0.01, 3), (0.6, 0.001, 5), (5.0, 0.0001, 16), (50.0, 0.01, 68), (150.0, 0.001, 190)],
)
def test_the_stock_for_so_many_misses_is_that_of_the_tables(
    mean: float, misses: float, stock: int
) -> None:
    assert theory.stock_for(mean, misses) == stock
    assert theory.refill_misses(mean, stock) <= misses < theory.refill_misses(mean, stock - 1)


def test_without_stock_everybody_misses_and_without_claims_nobody() -> None:
    assert theory.refill_misses(5.0, 0) == 1.0
    assert theory.refill_misses(0.0, 1) == 0.0
    assert theory.refill_misses(10_000.0, 100) == pytest.approx(1.0)
