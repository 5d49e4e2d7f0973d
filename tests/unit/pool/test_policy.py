"""Impossible policies are refused where they are written; back-off grows and is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import InvalidSpec
from sandpool.pool import Policy
from sandpool.pool.backoff import Backoff


@pytest.mark.parametrize(
    "settings",
    [
        {"max": 0},
        {"warm": -1},
        {"warm": 17},
        {"builders": 0},
        {"recycle": "wash"},
        {"lifetime": 0.0},
        {"max_age": float("inf")},
        {"claim_timeout": float("nan")},
        {"min_remaining": -1.0},
        {"lifetime": 5.0, "min_remaining": 5.0},
        {"create_timeout": -1.0},
        {"degraded_after": 0},
        {"max_waiting": -1},
    ],
)
def test_an_impossible_policy_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        Policy(**settings)


@given(st.integers(1, 200), st.floats(0, 1))
def test_a_pause_grows_up_to_a_bound(failures: int, jitter: float) -> None:
    backoff = Backoff(lambda: jitter)
    pauses: list[float] = []
    for at in range(failures):
        backoff.fail(at, at + 0.5)
        pauses.append(round(backoff.until - (at + 0.5), 6))
    assert pauses == sorted(pauses)
    assert all(0 < pause <= 30 for pause in pauses)
    assert backoff.failures == failures
    backoff.succeed()
    assert backoff.failures == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20))
def test_what_fails_side_by_side_is_one_failure_in_a_row(ends: list[float]) -> None:
    backoff = Backoff(lambda: 1.0)
    for end in sorted(ends):
        backoff.fail(0.0, end)  # all begun at once
    assert backoff.failures == 1
    assert backoff.until == pytest.approx(min(ends) + 0.1)
    after = max(ends) + 1
    backoff.fail(after, after)
    assert backoff.failures == 2
