"""Which processes die with a run: its own, and those that hide behind tags that nobody has."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from sandpool.guest.kin import Kin

TOP = 1 << 62


@pytest.fixture
def kin() -> Kin:
    return Kin(TOP)


def test_every_tag_is_lower_than_all_before_it(kin: Kin) -> None:
    tags = [kin.issue() for _ in range(100)]
    assert [TOP, *tags] == sorted({TOP, *tags}, reverse=True)


def test_the_next_tag_cannot_be_guessed_from_the_last(kin: Kin) -> None:
    tags = [kin.issue() for _ in range(20)]
    steps = {before - after for before, after in pairwise(tags)}
    assert len(steps) == 19


def test_a_process_of_the_run_is_a_victim_and_one_of_another_is_not(kin: Kin) -> None:
    mine, other = kin.issue(), kin.issue()
    assert kin.is_victim(mine, mine)
    assert not kin.is_victim(mine, other)


def test_a_process_without_a_tag_is_never_a_victim(kin: Kin) -> None:
    assert not kin.is_victim(kin.issue(), None)


def test_a_tag_that_was_never_given_out_hides_nobody(kin: Kin) -> None:
    mine = kin.issue()
    assert kin.is_victim(mine, mine - 1)
    assert kin.is_victim(mine, 0)


def test_what_an_ended_run_left_behind_is_spared(kin: Kin) -> None:
    ended = kin.issue()
    kin.retire(ended, is_empty=False)
    mine = kin.issue()
    assert not kin.is_victim(mine, ended)
    assert not kin.is_alone(mine)


def test_a_run_is_alone_once_nothing_of_earlier_ones_is_left(kin: Kin) -> None:
    kin.retire(kin.issue(), is_empty=False)
    kin.retire(kin.issue(), is_empty=True)
    assert kin.is_alone(kin.issue())


def test_a_spare_is_no_company_and_no_victim(kin: Kin) -> None:
    spare, mine = kin.issue(), kin.issue()
    kin.park(spare)
    assert kin.is_alone(mine)
    assert not kin.is_victim(mine, spare)


def test_a_spare_at_work_is_company(kin: Kin) -> None:
    spare, mine = kin.issue(), kin.issue()
    kin.park(spare)
    kin.employ(spare)
    assert not kin.is_alone(mine)
    assert kin.is_victim(spare, spare)


def test_an_empty_sandbox_forgets_nothing_while_a_run_lives(kin: Kin) -> None:
    ended, living = kin.issue(), kin.issue()
    kin.retire(ended, is_empty=True)
    assert not kin.is_victim(living, ended)


def test_ended_tags_are_forgotten_when_nobody_carries_them(kin: Kin) -> None:
    kept, *gone = [kin.issue() for _ in range(2000)]
    for tag in (kept, *gone):
        kin.retire(tag, is_empty=False)
    assert kin.is_crowded
    kin.forget_all_but({kept, TOP})
    assert not kin.is_crowded
    mine = kin.issue()
    assert not kin.is_victim(mine, kept)
    assert kin.is_victim(mine, gone[0])


class Sandbox(RuleBasedStateMachine):
    """Runs and spares come and go; a hunt never touches anybody else's process."""

    live = Bundle("live")
    parked = Bundle("parked")

    @initialize()
    def begin(self) -> None:
        self.kin = Kin(TOP)
        self.running: set[int] = set()
        self.spares: set[int] = set()
        self.left: set[int] = set()

    @rule(target=live)
    def start(self) -> int:
        tag = self.kin.issue()
        self.running.add(tag)
        return tag

    @rule(target=parked, tag=consumes(live))
    def park(self, tag: int) -> int:
        self.kin.park(tag)
        self.running.discard(tag)
        self.spares.add(tag)
        return tag

    @rule(target=live, tag=consumes(parked))
    def employ(self, tag: int) -> int:
        self.kin.employ(tag)
        self.spares.discard(tag)
        self.running.add(tag)
        return tag

    @rule(tag=consumes(live), leaves_some=st.booleans())
    def end(self, tag: int, leaves_some: bool) -> None:
        self.running.discard(tag)
        if leaves_some:
            self.left.add(tag)
        is_empty = not (self.running or self.spares or self.left)
        self.kin.retire(tag, is_empty=is_empty)

    @rule(target=parked, tag=consumes(parked))
    def sweep_out(self, tag: int) -> object:
        self.kin.forget_all_but(self.left | self.running | self.spares)
        return multiple(tag)

    @invariant()
    def nobody_else_is_ever_a_victim(self) -> None:
        everyone = self.running | self.spares | self.left
        for mine in self.running:
            assert {tag for tag in everyone if self.kin.is_victim(mine, tag)} == {mine}
            if self.kin.is_alone(mine):
                assert everyone - self.spares == {mine}


TestSandbox = Sandbox.TestCase
TestSandbox.settings = settings(max_examples=25, stateful_step_count=20)
