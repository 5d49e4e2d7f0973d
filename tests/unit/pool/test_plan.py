"""What the plan promises for any counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandpool.pool.plan import plan

few = st.integers(0, 8)


@st.composite
def counts(draw: st.DrawFn) -> dict[str, int]:
    """Draw the counts of a pool, also one whose `max` has just become smaller."""
    found = {name: draw(few) for name in ("ready", "unfit", "coming", "busy", "waiting")}
    if not found["waiting"]:
        # Nobody waits, so nothing is unfit for anybody.
        found["ready"] += found["unfit"]
        found["unfit"] = 0
    max_size = draw(st.integers(1, 16))
    found["expiring"] = draw(st.integers(0, found["ready"] + found["unfit"]))
    return {**found, "max_size": max_size, "warm": draw(st.integers(0, max_size))}


def alive(found: dict[str, int]) -> int:
    return found["ready"] + found["unfit"] + found["coming"] + found["busy"]


@given(counts())
def test_nothing_is_promised_that_is_not_there(found: dict[str, int]) -> None:
    wanted = plan(**found)
    assert 0 <= wanted.serve <= min(found["ready"], found["waiting"])
    assert 0 <= wanted.retire <= found["ready"] + found["unfit"] - wanted.serve
    assert wanted.create >= 0


@given(counts())
def test_a_creation_never_exceeds_the_maximum(found: dict[str, int]) -> None:
    wanted = plan(**found)
    if wanted.create:
        assert alive(found) - wanted.retire + wanted.create <= found["max_size"]


@given(counts())
def test_whoever_can_be_served_is_served(found: dict[str, int]) -> None:
    assert plan(**found).serve == min(found["ready"], found["waiting"])


@given(counts())
def test_a_surplus_is_never_retired_and_made_again(found: dict[str, int]) -> None:
    found["unfit"] = found["expiring"] = 0
    wanted = plan(**found)
    assert not (wanted.create and wanted.retire)


@given(counts())
def test_whoever_waits_gets_a_creation_if_there_is_room_for_one(found: dict[str, int]) -> None:
    wanted = plan(**found)
    unserved = found["waiting"] - wanted.serve
    # Those served are busy from now on; what is unfit can go.
    taken = found["coming"] + found["busy"] + wanted.serve
    if unserved > found["coming"] and taken < found["max_size"]:
        assert wanted.create >= 1


@given(counts())
def test_a_quiet_pool_that_is_full_is_left_alone(found: dict[str, int]) -> None:
    found.update(ready=found["warm"], unfit=0, coming=0, waiting=0, expiring=0)
    found["max_size"] = max(found["max_size"], alive(found))
    assert plan(**found) == (0, 0, 0)


@given(counts())
def test_acting_on_the_plan_comes_to_rest(found: dict[str, int]) -> None:
    for _ in range(20):
        wanted = plan(**found)
        if wanted == (0, 0, 0) and not found["coming"]:
            return
        idle = found["ready"] + found["unfit"] - wanted.serve - wanted.retire
        # Those that expire are the longest ready, so they are the first to go; without room for
        # others they stay.
        found["expiring"] = max(0, found["expiring"] - wanted.retire)
        if not wanted.create:
            found["expiring"] = 0
        # Served waiters are busy; what was begun is ready, and fits whoever still waits.
        found["busy"] += wanted.serve
        found["waiting"] -= wanted.serve
        found["unfit"] = min(found["unfit"], idle) if found["waiting"] else 0
        found["ready"] = idle - found["unfit"] + wanted.create + found["coming"]
        found["coming"] = 0
    raise AssertionError("the plan never comes to rest")


def test_a_burst_is_served_by_what_is_on_its_way() -> None:
    found = plan(ready=0, unfit=0, coming=4, busy=4, waiting=4, warm=0, max_size=16)
    assert found == (0, 0, 0)


def test_taking_one_starts_its_replacement() -> None:
    assert plan(ready=3, unfit=0, coming=0, busy=1, waiting=0, warm=4, max_size=16).create == 1


def test_what_expires_is_replaced_before_it_goes() -> None:
    full = {"unfit": 0, "coming": 0, "busy": 0, "waiting": 0, "warm": 2, "max_size": 4}
    assert plan(ready=2, expiring=1, **full) == (0, 1, 0)
    assert plan(ready=2, expiring=1, **{**full, "coming": 1}) == (0, 0, 0)
    assert plan(ready=3, expiring=1, **full) == (0, 0, 1)


def test_what_expires_is_of_use_to_whoever_waits() -> None:
    found = plan(ready=1, unfit=0, coming=0, busy=0, waiting=1, warm=0, max_size=4, expiring=1)
    assert found == (1, 0, 0)


def test_stock_that_nobody_can_use_makes_room() -> None:
    found = plan(ready=0, unfit=2, coming=0, busy=0, waiting=1, warm=2, max_size=2)
    assert found == (0, 1, 1)
