"""`Durations`: quantiles of the latest times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandpool.manager.durations import Durations

TIMES = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=700)


def test_nothing_has_no_quantiles() -> None:
    assert Durations().quantiles() is None


def test_the_quantiles_are_values_that_came() -> None:
    durations = Durations()
    for number in range(100, 0, -1):
        durations.add(number)
    found = durations.quantiles()
    assert found is not None
    assert (found.p50, found.p99, found.maximum, found.count) == (50, 99, 100, 100)


@given(TIMES)
def test_a_quantile_is_not_less_than_its_share_of_the_latest(times: list[float]) -> None:
    durations = Durations()
    for seconds in times:
        durations.add(seconds)
    found = durations.quantiles()
    latest = times[-512:]
    assert found is not None
    assert found.count == len(latest)
    assert found.maximum == max(latest)
    for share, value in ((0.5, found.p50), (0.99, found.p99)):
        assert value in latest
        assert sum(each <= value for each in latest) >= share * len(latest)
        assert sum(each < value for each in latest) < share * len(latest)
