"""The stock of ready items, beside a model that looks at every one of them each time."""

from __future__ import annotations

import math

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandpool.pool.member import Member
from sandpool.pool.policy import Policy
from sandpool.pool.slots import SlotId
from sandpool.pool.stock import Stock
from sandpool.testing import FakeFactory, FakeItem, ManualClock

FACTORY = FakeFactory(ManualClock())

lifetimes = st.sampled_from([None, 10.0, 20.0])
policies = st.builds(
    Policy,
    lifetime=lifetimes,
    min_remaining=st.sampled_from([0.0, 3.0]),
    max_age=st.sampled_from([None, 8.0, 15.0]),
    check_interval=st.sampled_from([None, 2.0]),
    expiry_spread=st.sampled_from([0.0, 0.4]),
    oldest_first=st.booleans(),
    recycle=st.sampled_from(["fresh", "reset", "reuse"]),
)
needs = st.sampled_from([0.0, 1.0, 5.0, 12.0])


class StockWalk(RuleBasedStateMachine):
    """Does what a pool may do, while time passes."""

    @initialize(policy=policies)
    def begin(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.made = 0
        self.stock: Stock[FakeItem] = Stock(policy)
        self.here: list[Member[FakeItem]] = []
        """In the order in which they became ready."""
        self.away: list[Member[FakeItem]] = []

    def turn(self) -> list[Member[FakeItem]]:
        takes_turns = self.policy.oldest_first or self.policy.recycle == "reuse"
        return self.here if takes_turns else self.here[::-1]

    def least_lasting(self) -> list[Member[FakeItem]]:
        return sorted(self.here, key=lambda one: one.replace_at(self.policy))

    def gone(self, member: Member[FakeItem]) -> None:
        self.here.remove(member)
        self.away.append(member)

    @rule(haste=st.floats(0, 1), took=st.sampled_from([0.0, 2.0]))
    def make(self, haste: float, took: float) -> None:
        self.made += 1
        lifetime = self.policy.lifetime
        member = Member(
            SlotId(self.made),
            FakeItem(self.made),
            FACTORY,
            generation=0,
            created_at=self.now,
            ends_at=None if lifetime is None else self.now + lifetime,
            took=took,
            haste=haste,
        )
        self.stock.add(member)
        self.here.append(member)

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(need=needs)
    def hand_out(self, need: float) -> None:
        fits = [member for member in self.turn() if member.fits(need, self.now)]
        assert self.stock.has_fit(need, self.now) == bool(fits)
        found = self.stock.first_fit(need, self.now)
        assert found is (fits[0] if fits else None)
        if found is not None:
            self.stock.remove(found)
            self.gone(found)

    @precondition(lambda self: self.away)
    @rule(index=st.integers(0, 20), is_used=st.booleans())
    def come_back(self, index: int, is_used: bool) -> None:
        member = self.away.pop(index % len(self.away))
        if is_used:
            self.stock.add(member)
            self.here.append(member)
        else:
            self.stock.put_back(member)
            self.here.append(member)
            self.here.sort(key=lambda one: one.order or 0)

    @rule()
    def end_one(self) -> None:
        assume(self.here)
        found = self.stock.pop_least_lasting()
        assert found is self.least_lasting()[0]
        self.gone(found)

    @rule()
    def end_those_over(self) -> None:
        over = {one.slot for one in self.here if one.over_at(self.policy) <= self.now}
        found: set[SlotId] = set()
        while (member := self.stock.pop_over(self.now)) is not None:
            found.add(member.slot)
            self.gone(member)
        assert found == over

    @rule()
    def look_at_one(self) -> None:
        interval = self.policy.check_interval
        due = [] if interval is None else [one.checked_at + interval for one in self.here]
        found = self.stock.pop_check_due(self.now)
        if found is None:
            assert min(due, default=math.inf) > self.now
        else:
            assert interval is not None
            assert found.checked_at + interval == min(due) <= self.now
            self.gone(found)
            found.checked_at = self.now

    @rule(policy=policies)
    def change(self, policy: Policy) -> None:
        self.policy = policy
        for member in (*self.here, *self.away):
            lifetime = policy.lifetime
            member.ends_at = None if lifetime is None else member.created_at + lifetime
        self.stock.follow(policy)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert len(self.stock) == len(self.here)
        assert self.stock.in_turn() == self.turn()

    @invariant()
    def it_knows_what_is_due(self) -> None:
        policy = self.policy
        begin = [one.replace_at(policy) for one in self.here]
        assert self.stock.count_expiring(self.now) == sum(when <= self.now for when in begin)
        due = [when for when in begin if when > self.now]
        due += [one.over_at(policy) for one in self.here]
        assert self.stock.next_due(self.now, with_checks=False) == min(due, default=math.inf)
        if policy.check_interval is not None:
            due += [one.checked_at + policy.check_interval for one in self.here]
        assert self.stock.next_due(self.now, with_checks=True) == min(due, default=math.inf)


TestStockWalk = StockWalk.TestCase
