"""The agenda of what is due when: beside a model that is a plain dict."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandpool.pool.agenda import Agenda

numbers = st.integers(0, 5)
times = st.sampled_from([-math.inf, -1.0, 0.0, 1.0, 2.0, math.inf])


class AgendaWalk(RuleBasedStateMachine):
    """Does what can be done, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.agenda = Agenda()
        self.model: dict[int, float] = {}

    @rule(number=numbers, when=times)
    def put(self, number: int, when: float) -> None:
        self.agenda.put(number, when)
        self.model[number] = when

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        self.agenda.drop(number)
        self.model.pop(number, None)

    @rule(now=times)
    def pop_due(self, now: float) -> None:
        due = [(when, number) for number, when in self.model.items() if when <= now]
        expected = min(due)[1] if due else None
        assert self.agenda.pop_due(now) == expected
        if expected is not None:
            del self.model[expected]

    @invariant()
    def the_first_is_the_earliest(self) -> None:
        order = sorted((when, number) for number, when in self.model.items())
        assert len(self.agenda) == len(self.model)
        assert self.agenda.first() == (order[0][1] if order else None)
        assert self.agenda.next_time(7.0) == (order[0][0] if order else 7.0)


TestAgendaWalk = AgendaWalk.TestCase


@given(st.integers(1, 40), st.integers(200, 600))
def test_what_was_changed_or_dropped_is_not_kept_for_ever(living: int, changes: int) -> None:
    agenda = Agenda()
    for change in range(changes):
        agenda.put(change % living, float(change))
        agenda.drop((change * 7) % living)
    agenda.put(0, -1.0)
    assert agenda.entries <= 2 * len(agenda) + 64
