"""The real pool in virtual time: nobody and nothing is lost, and theory holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.pool import Policy
from sandpool.testing import Behaviour, Step, Time, exponential, fixed, scaling, theory, traces
from sandpool.testing.simulation import Outcome, Scenario, memory_per_item, simulate

Trace = Callable[[int], Iterator[float]]


def ticks() -> float:
    """Stand in for the processor's time, which no test should depend on."""
    return 0.0


policies = st.builds(
    Policy,
    warm=st.integers(0, 5),
    max=st.integers(5, 12),
    builders=st.integers(1, 4),
    recycle=st.sampled_from(["fresh", "reset", "reuse"]),
    lifetime=st.sampled_from([None, 3.0]),
    max_age=st.sampled_from([None, 2.0]),
    check_interval=st.sampled_from([None, 0.7]),
    expiry_spread=st.sampled_from([0.0, 0.5]),
    oldest_first=st.booleans(),
    refill_delay=st.sampled_from([0.0, 0.05]),
    # Of failures in a row, none is to send a caller away.
    degraded_after=st.just(1_000_000),
)
steps = st.builds(
    Step,
    st.sampled_from([fixed(0.0), fixed(0.1), exponential(0.2)]),
    st.sampled_from([0.0, 0.1]),
)
behaviours = st.builds(Behaviour, create=steps, check=steps, reset=steps, destroy=steps)
arrivals = st.sampled_from(
    [
        partial(traces.poisson, 20.0),
        lambda seed: traces.bursts(
            calm=5.0, busy=100.0, calm_seconds=1.0, busy_seconds=0.2, seed=seed
        ),
        partial(traces.diurnal, 20.0, 0.9, 5.0),
    ]
)


@settings(max_examples=15)
@given(policy=policies, behaviour=behaviours, trace=arrivals, seed=st.integers(0, 1_000))
def test_no_caller_and_no_item_is_ever_lost(
    policy: Policy, behaviour: Behaviour, trace: Trace, seed: int
) -> None:
    scenario = Scenario(
        policy=policy,
        behaviour=behaviour,
        trace=trace,
        hold=exponential(0.2),
        seconds=4.0,
        warm_up=1.0,
        seed=seed,
    )
    first = simulate(scenario, meter=ticks)
    assert first.unserved == 0
    assert first.created == first.destroyed
    assert first.most_alive <= policy.max
    assert simulate(scenario, meter=ticks) == first


@pytest.mark.parametrize("time", [fixed(0.05), exponential(0.05)])
def test_where_each_claim_is_replaced_at_once_the_share_of_misses_is_as_in_theory(
    time: Time,
) -> None:
    missed = miss_rate(time, stock=6, rate=100.0, builders=100)
    assert missed == pytest.approx(theory.refill_misses(5.0, 6), rel=0.15)


def test_where_one_builder_makes_all_the_share_of_misses_is_as_in_theory() -> None:
    missed = miss_rate(exponential(0.01), stock=3, rate=70.0, builders=1)
    assert missed == pytest.approx(theory.queue_misses(0.7, 3), rel=0.15)


def miss_rate(time: Time, *, stock: int, rate: float, builders: int) -> float:
    outcome = simulate(
        Scenario(
            policy=Policy(warm=stock, max=1_000, builders=builders),
            behaviour=Behaviour(create=Step(time)),
            trace=partial(traces.poisson, rate),
            hold=fixed(0.1),
            seconds=15.0,
            warm_up=1.0,
        )
    )
    return outcome.waits.miss_rate


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_changing_rates_miss_as_theory_says_of_each_rate() -> None:
    found = scaling.misses(300.0)
    assert len(found) == 6
    for row in found:
        assert row.callers > 15_000
        assert row.simulated == pytest.approx(row.theory, rel=0.4), row


def test_the_callers_of_a_burst_wait_for_what_is_built_before_theirs() -> None:
    waits = scaling.burst(callers=30, stock=10, rate=100.0, builders=2)
    assert [wait.place for wait in waits] == list(range(11, 31))
    for wait in waits:
        # Two are made at a time, so one of each two waits for a place more.
        assert wait.theory - 1e-9 <= wait.simulated <= wait.theory + 0.01 + 1e-9
    assert [wait.simulated for wait in waits] == sorted(wait.simulated for wait in waits)


def test_nodes_with_pools_of_their_own_are_simulated_together() -> None:
    found, missed = scaling.growth(1_000, leases=400, warm_up=1.0, pools=10)
    assert found.pools == 10
    assert missed.callers == pytest.approx(400, rel=0.3)
    assert missed.stock == theory.stock_for(10.0, 0.01)


def plans(sandboxes: int) -> float:
    """Return how often a pool of this size looks at its plan for each lease."""
    return scaling.growth(sandboxes, leases=400, warm_up=8.0, lifetime=60.0)[0].plans


def test_a_larger_pool_plans_no_more_often_for_each_lease() -> None:
    assert plans(1_000) < 1.3 * plans(100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_sandboxes_are_served_without_loss() -> None:
    rate = 20_000.0
    outcome: Outcome = simulate(
        Scenario(
            policy=Policy(
                warm=10_300,
                max=200_000,
                builders=200_000,
                max_waiting=1_000_000,
                lifetime=60.0,
                expiry_spread=0.3,
            ),
            behaviour=Behaviour(create=Step(exponential(0.5)), destroy=Step(fixed(0.01))),
            trace=partial(traces.poisson, rate),
            hold=fixed(4.4),
            seconds=4.8,
            warm_up=4.5,
        )
    )
    assert outcome.most_alive > 95_000
    assert outcome.unserved == 0
    assert outcome.created == outcome.destroyed
    # What is fixed, whatever the machine: how often the planner is asked for each lease.
    assert outcome.cost.planned < 6 * outcome.cost.leases


def test_what_an_idle_item_takes_does_not_grow_with_their_number() -> None:
    small, large = memory_per_item(100), memory_per_item(400)
    assert 0 < large < 1.5 * small


def test_a_trace_that_ends_ends_the_simulation() -> None:
    outcome = simulate(
        Scenario(
            policy=Policy(warm=1, max=2),
            behaviour=Behaviour(create=Step(fixed(1.0))),
            trace=lambda seed: itertools.repeat(0.5, 3),
            hold=fixed(2.0),
            seconds=1.0,
        ),
        meter=ticks,
    )
    assert (outcome.waits.callers, outcome.waits.misses) == (3, 2)
    # One is made from the first claim on; the other waits for a lease to end, and for a new item.
    assert outcome.waits.in_order == pytest.approx((1.0, 3.0))
    assert outcome.waits.longest == pytest.approx(3.0)
