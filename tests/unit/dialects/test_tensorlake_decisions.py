"""What the Tensorlake dialect decides without doing anything: names, patience, back-off, pools."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.dialects.tensorlake.creation import Patience, patience
from sandpool.dialects.tensorlake.models import PoolRequest
from sandpool.dialects.tensorlake.names import check_name, new_id
from sandpool.dialects.tensorlake.pool_definition import (
    Addition,
    addition_of,
    changed_addition,
    changed_spec,
    new_addition,
    new_spec,
)
from sandpool.dialects.tensorlake.process_models import RestartPolicy
from sandpool.dialects.tensorlake.supervisor import backoff
from sandpool.errors import InvalidSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

policies = st.builds(
    RestartPolicy,
    policy=st.sampled_from(["on_failure", "always"]),
    initial_backoff_ms=st.integers(1, 10**6),
    max_backoff_ms=st.integers(1, 10**6),
)


def test_no_id_can_be_a_name() -> None:
    for _ in range(100):
        with pytest.raises(InvalidSpec):
            check_name(new_id())


@pytest.mark.parametrize(
    "name", ["", "A", "9lives", "a-", "a_b", "a.b", "a" * 64, "a" * 21, "pool/one", "a\n"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "a9", "my-box", "a" * 63, "a" * 20, "a-" + "b" * 19])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("timeout", "grace", "expected"),
    [
        (None, None, Patience(2.0, is_all=False)),
        ("300000", None, Patience(2.0, is_all=False)),
        ("1000", None, Patience(0.5, is_all=False)),
        ("65000", "5000", Patience(60.0, is_all=True)),
        ("5000", "5000", Patience(0.0, is_all=True)),
        ("1000", "5000", Patience(0.0, is_all=True)),
        ("99999999", "5000", Patience(290.0, is_all=True)),
        ("soon", "5000", Patience(2.0, is_all=False)),
        ("-5", None, Patience(2.0, is_all=False)),
    ],
)
def test_an_answer_comes_before_its_client_gives_up(
    timeout: str | None, grace: str | None, expected: Patience
) -> None:
    named = {
        "x-tensorlake-request-timeout-ms": timeout,
        "x-tensorlake-request-timeout-grace-ms": grace,
    }
    found = patience({name: value for name, value in named.items() if value is not None})
    assert found == expected


@given(policies, st.integers(0, 10**9))
def test_a_process_is_never_kept_waiting_longer_than_its_policy_says(
    policy: RestartPolicy, restarts: int
) -> None:
    delay = backoff(policy, restarts, has_failed=True)
    assert delay is not None
    assert 0 < delay <= policy.max_backoff_ms / 1000
    following = backoff(policy, restarts + 1, has_failed=True)
    assert following is not None
    assert following >= delay


@pytest.mark.parametrize(
    ("policy", "restarts", "has_failed", "is_started"),
    [
        (RestartPolicy(policy="never"), 0, True, False),
        (RestartPolicy(policy="on_failure"), 0, False, False),
        (RestartPolicy(policy="on_failure"), 0, True, True),
        (RestartPolicy(policy="always"), 0, False, True),
        (RestartPolicy(policy="always", max_restarts=2), 1, True, True),
        (RestartPolicy(policy="always", max_restarts=2), 2, True, False),
    ],
)
def test_a_process_is_started_again_as_its_policy_says(
    policy: RestartPolicy, restarts: int, *, has_failed: bool, is_started: bool
) -> None:
    assert (backoff(policy, restarts, has_failed=has_failed) is not None) == is_started


def wanted(**fields: Any) -> PoolRequest:
    return PoolRequest.model_validate({"image": "host", **fields})


def test_a_pool_keeps_its_additions_in_its_definition() -> None:
    request = wanted(
        entrypoint=["serve"], network={"deny_out": ["10.0.0.0/8"]}, secret_names=["TOKEN"]
    )
    addition = new_addition(request, NOW)
    spec = new_spec("pool-a", request, addition)
    assert addition_of(spec, LATER) == addition


def test_a_label_of_somebody_else_is_no_addition() -> None:
    request = wanted()
    spec = new_spec("pool-a", request, new_addition(request, NOW))
    foreign = spec.model_copy(update={"labels": {"tensorlake": "not ours"}})
    assert addition_of(foreign, LATER) == Addition(created_at=LATER, updated_at=LATER)


def test_a_change_keeps_the_labels_of_others_and_what_this_dialect_has_no_words_for() -> None:
    request = wanted()
    addition = new_addition(request, NOW)
    spec = new_spec("pool-a", request, addition).model_copy(
        update={"labels": {"team": "search"}, "preload": ("json",)}
    )
    after = changed_addition(addition, wanted(warm_containers=2), LATER)
    changed = changed_spec(spec, wanted(warm_containers=2), after)
    assert (changed.labels["team"], changed.preload, changed.warm) == ("search", ("json",), 2)


def test_only_a_change_of_what_runs_inside_makes_containers_stale() -> None:
    before = new_addition(wanted(entrypoint=["serve"], secret_names=["A"]), NOW)
    same = changed_addition(before, wanted(entrypoint=["serve"], secret_names=["B"]), LATER)
    other = changed_addition(before, wanted(entrypoint=["work"]), LATER)
    assert not same.differs_in_containers(before)
    assert other.differs_in_containers(before)
