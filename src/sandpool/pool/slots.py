"""Slot bookkeeping: which items exist and what each one is doing.

This module is pure.  It never awaits, logs, or reads a clock, so every test of it is an ordinary
function call.  `sandpool.pool.pool` does the work and reports back here.

    CREATING ─► READY ─► LEASED ─► RESETTING ─► READY
        │         ├─► CHECKING ─► READY or LEASED
        └─────────┴─────────┴──────────┴─────► DEAD

    I1  A slot is in exactly one state.
    I2  Slots that are not DEAD never outnumber `max_size`, but for what a smaller `max_size` found.
    I3  A slot reaches READY only from CREATING, RESETTING or CHECKING: an item that was lent is not
        offered again without a reset.  The one exception has a name of its own, `reuse`.
    I4  added == dead + not dead, at every instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NewType

SlotId = NewType("SlotId", int)


class State(Enum):
    """What the item of a slot is doing."""

    CREATING = "creating"
    READY = "ready"
    CHECKING = "checking"
    """Held for a caller or looked at by the pool; no tenant has it."""
    LEASED = "leased"
    RESETTING = "resetting"
    DEAD = "dead"

    # Members are keys of the counts; the default hash goes through the member's name each time.
    __hash__ = object.__hash__


_NEXT: dict[State, frozenset[State]] = {
    State.CREATING: frozenset({State.READY, State.DEAD}),
    State.READY: frozenset({State.CHECKING, State.LEASED, State.DEAD}),
    State.CHECKING: frozenset({State.READY, State.LEASED, State.DEAD}),
    State.LEASED: frozenset({State.RESETTING, State.DEAD}),
    State.RESETTING: frozenset({State.READY, State.DEAD}),
    State.DEAD: frozenset(),
}


class IllegalTransition(AssertionError):
    """The pool has a bug: an item was about to do what its state forbids.  Never caught."""


class Slots:
    """The slots of one pool."""

    def __init__(self, max_size: int) -> None:
        """Begin with none."""
        self.max_size = max_size
        self._states: dict[SlotId, State] = {}  # Invariant I1; DEAD ones are not kept
        self._counts = dict.fromkeys(State, 0)
        self.counts: Mapping[State, int] = MappingProxyType(self._counts)
        """How many slots are in each state now; for DEAD, how many ever were."""
        self._added = 0

    def add(self) -> SlotId:
        """Reserve a slot for an item that is about to be created.

        It counts from this moment, not from the moment the item exists, so that two creations
        cannot both take the last place.
        """
        if self.alive >= self.max_size:  # Invariant I2
            raise IllegalTransition(f"all {self.max_size} slots are taken")
        self._added += 1
        slot = SlotId(self._added)
        self._states[slot] = State.CREATING
        self._counts[State.CREATING] += 1
        return slot

    def state(self, slot: SlotId) -> State:
        """Return the state of a slot."""
        return self._states.get(slot, State.DEAD)

    def move(self, slot: SlotId, to: State) -> None:
        """Put a slot into its next state; `IllegalTransition` where there is no such edge."""
        now = self.state(slot)
        if to not in _NEXT[now]:  # Invariant I3
            raise IllegalTransition(f"slot {slot} cannot go from {now.value} to {to.value}")
        self._put(slot, now, to)

    def reuse(self, slot: SlotId) -> None:
        """Offer an item again as its last tenant left it."""
        now = self.state(slot)
        if now is not State.LEASED:
            raise IllegalTransition(f"slot {slot} is {now.value}, so it cannot be reused")
        self._put(slot, now, State.READY)

    def _put(self, slot: SlotId, now: State, to: State) -> None:
        self._counts[now] -= 1
        self._counts[to] += 1
        if to is State.DEAD:
            del self._states[slot]
        else:
            self._states[slot] = to

    @property
    def added(self) -> int:
        """Return how many slots there have ever been."""
        return self._added

    @property
    def alive(self) -> int:
        """Return how many slots are not DEAD."""
        return len(self._states)
