"""The bookkeeping of slots: a walk over every edge, and the edges that do not exist."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sandpool.pool.slots import IllegalTransition, SlotId, Slots, State

ALIVE: list[State] = [state for state in State if state is not State.DEAD]


class SlotsWalk(RuleBasedStateMachine):
    """Does what a pool may do, in any order, beside a model that is a plain dict."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(3)
        self.model: dict[SlotId, State] = {}
        self.added = 0

    @rule(target=known)
    def add(self) -> SlotId:
        if len(self.model) >= self.slots.max_size:
            with pytest.raises(IllegalTransition):
                self.slots.add()
            return SlotId(0)
        slot = self.slots.add()
        assert slot not in self.model
        self.added += 1
        self.model[slot] = State.CREATING
        return slot

    @rule(slot=known, to=st.sampled_from(State))
    def move(self, slot: SlotId, to: State) -> None:
        before = self.model.get(slot, State.DEAD)
        try:
            self.slots.move(slot, to)
        except IllegalTransition:
            assert self.slots.state(slot) is before
            return
        # An item that was lent is never ready again without having been reset.
        assert (before, to) != (State.LEASED, State.READY)
        assert before is not State.DEAD
        self._note(slot, to)

    @rule(slot=known)
    def reuse(self, slot: SlotId) -> None:
        if self.model.get(slot) is State.LEASED:
            self.slots.reuse(slot)
            self._note(slot, State.READY)
        else:
            with pytest.raises(IllegalTransition):
                self.slots.reuse(slot)

    @rule(size=st.integers(1, 5))
    def resize(self, size: int) -> None:
        self.slots.max_size = max(size, len(self.model))

    def _note(self, slot: SlotId, to: State) -> None:
        if to is State.DEAD:
            del self.model[slot]
        else:
            self.model[slot] = to

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.slots.alive == len(self.model) <= self.slots.max_size
        assert self.slots.added == self.added
        assert self.slots.added == self.slots.alive + self.slots.counts[State.DEAD]
        for state in ALIVE:
            assert self.slots.counts[state] == list(self.model.values()).count(state)
        for slot, state in self.model.items():
            assert self.slots.state(slot) is state


TestSlotsWalk = SlotsWalk.TestCase


def test_a_slot_counts_from_its_reservation() -> None:
    slots = Slots(1)
    slots.add()
    with pytest.raises(IllegalTransition, match="all 1 slots are taken"):
        slots.add()


def test_what_is_dead_stays_dead() -> None:
    slots = Slots(1)
    slot = slots.add()
    slots.move(slot, State.DEAD)
    for state in State:
        with pytest.raises(IllegalTransition):
            slots.move(slot, state)
