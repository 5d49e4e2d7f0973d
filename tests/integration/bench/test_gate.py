"""A pool keeps its distance from what it replaces: ratios of one run, with a wide margin.

Seconds say more about a machine, and about what else runs on it, than about sandpool; ratios to
baselines that were measured in turns hardly do.  Their bounds are several times as wide as what is
measured on a quiet machine, so that only a change of the order of a cost, such as an interpreter
that is started per lease, is caught, and always is.
"""

from __future__ import annotations

import pytest

from sandpool.bench.report import Figure
from sandpool.bench.runner import run_here
from sandpool.bench.suite import find
from tests.integration.bench.scales import TINY

pytestmark = [pytest.mark.namespaces, pytest.mark.slow]

SCALE = TINY.model_copy(update={"repeats": 3, "samples": 15, "slow_samples": 4})


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    found = run_here(find("B2"), SCALE)
    assert found.status == "done", found.reason
    return {figure.name: figure for figure in found.findings.figures}


# The best of the repeats each time: what else runs on a machine can only make the others worse.


def test_a_lease_costs_about_a_fork(figures: dict[str, Figure]) -> None:
    name = "borrow to first output of print(1) ÷ bare fork of an equal interpreter"
    assert min(figures[name].repeats) <= 5


def test_a_lease_is_faster_than_an_interpreter_that_is_started(figures: dict[str, Figure]) -> None:
    name = "cold `python3 -I -S` ÷ borrow to first output of print(1)"
    assert max(figures[name].repeats) >= 2


def test_what_was_imported_ahead_is_not_imported_again(figures: dict[str, Figure]) -> None:
    assert max(figures["importing ÷ preloaded"].repeats) >= 15


def test_a_hand_over_is_a_small_part_of_a_first_output(figures: dict[str, Figure]) -> None:
    whole = figures["first output at 100/s, hits, from the intended start, p50"]
    assert min(figures["first output at 100/s, of which hand-over, p50"].repeats) <= whole.value
