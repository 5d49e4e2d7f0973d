"""Who holds what: ids, room, and who may use a sandbox at the moment."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandpool.errors import (
    CreateFailed,
    NoCapacity,
    SandboxExists,
    SandboxLeased,
    SandboxNotActive,
    SandboxNotFound,
)
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.registry import Registry
from sandpool.models import SandboxConfig, SandboxStatus
from sandpool.testing import FakeBackend, ManualClock


def sandbox(name: str, status: SandboxStatus = SandboxStatus.RUNNING) -> LocalSandbox:
    made = LocalSandbox(SandboxConfig(), name, backend=FakeBackend(), clock=ManualClock())
    made.update_status(status)
    return made


def test_an_id_belongs_to_one_sandbox() -> None:
    registry = Registry(limit=2)
    first = sandbox("a")
    registry.add(first)
    with pytest.raises(SandboxExists):
        registry.add(sandbox("a"))
    assert registry.find("a") is first


def test_a_full_registry_says_when_to_try_again() -> None:
    registry = Registry(limit=1)
    registry.add(sandbox("a"))
    with pytest.raises(NoCapacity, match="max_sandboxes") as full:
        registry.add(sandbox("b"))
    assert full.value.retry_after == 1.0
    registry.remove("a")
    registry.add(sandbox("b"))


def test_an_id_that_is_there_is_said_to_be_there_even_where_there_is_no_room() -> None:
    registry = Registry(limit=1)
    registry.add(sandbox("a"))
    with pytest.raises(SandboxExists):
        registry.add(sandbox("a"))


def test_removing_what_is_gone_changes_nothing() -> None:
    registry = Registry(limit=1)
    registry.remove("a")
    assert registry.room == 1


def test_an_unknown_sandbox_is_found_nowhere() -> None:
    registry = Registry(limit=1)
    with pytest.raises(SandboxNotFound, match="ghost"):
        registry.find("ghost")
    with pytest.raises(SandboxNotFound, match="ghost"):
        registry.usable("ghost")
    assert registry.tenure("ghost") is None


@pytest.mark.parametrize("status", list(SandboxStatus))
def test_only_an_active_sandbox_can_be_used_and_every_one_can_be_found(
    status: SandboxStatus,
) -> None:
    registry = Registry(limit=1)
    made = sandbox("a", status)
    registry.add(made)
    assert registry.find("a") is made
    if status in (SandboxStatus.RUNNING, SandboxStatus.IDLE, SandboxStatus.BUSY):
        assert registry.usable("a") is made
    else:
        with pytest.raises(SandboxNotActive, match=status.value):
            registry.usable("a")


def test_a_pools_sandbox_cannot_be_used_by_its_id_and_says_what_to_do() -> None:
    registry = Registry(limit=1)
    registry.add(sandbox("a"), "one")
    with pytest.raises(SandboxLeased, match="pool one") as refused:
        registry.usable("a")
    assert "claim" in str(refused.value)


def test_a_claimed_sandbox_is_reached_through_its_owners_handle() -> None:
    registry = Registry(limit=1)
    root = sandbox("a")
    registry.add(root, "one")
    tenure = registry.tenure("a")
    assert tenure is not None
    tenure.claimed = handle = sandbox("a")
    assert registry.usable("a") is registry.find("a") is handle
    assert registry.is_member(root)
    assert not registry.is_member(handle)


def test_what_its_pool_gives_up_stays_as_a_record_of_its_own() -> None:
    registry = Registry(limit=2)
    made = sandbox("a")
    registry.add(made, "one")
    assert (registry.own(), registry.members(["one"])) == ([], [made])
    registry.detach("a")
    assert (registry.own(), registry.members(["one"])) == ([made], [])
    assert registry.usable("a") is made
    registry.detach("a")
    assert registry.own() == [made]


def test_a_sandbox_deleted_during_its_start_is_noticed_even_if_its_id_is_used_again() -> None:
    registry = Registry(limit=1)
    first, second = sandbox("a"), sandbox("a")
    registry.add(first)
    registry.check_present(first)
    registry.remove("a")
    with pytest.raises(CreateFailed, match="deleted"):
        registry.check_present(first)
    registry.add(second)
    with pytest.raises(CreateFailed, match="deleted"):
        registry.check_present(first)
    registry.check_present(second)


NAMES = st.sampled_from("abcdef")
POOLS = st.sampled_from([None, "one", "two"])


class RegistryMachine(RuleBasedStateMachine):
    """Any order of calls keeps G1 to G3, and the model's books."""

    LIMIT = 4

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(self.LIMIT)
        self.model: dict[str, tuple[LocalSandbox, str | None]] = {}

    @rule(name=NAMES, pool=POOLS)
    def add(self, name: str, pool: str | None) -> None:
        made = sandbox(name)
        if name in self.model:
            with pytest.raises(SandboxExists):
                self.registry.add(made, pool)
        elif len(self.model) == self.LIMIT:
            with pytest.raises(NoCapacity):
                self.registry.add(made, pool)
        else:
            self.registry.add(made, pool)
            self.model[name] = made, pool

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.registry.remove(name)
        self.model.pop(name, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.registry.detach(name)
        self.model[name] = self.model[name][0], None

    @invariant()
    def the_books_agree(self) -> None:
        registry, model = self.registry, self.model
        assert registry.sandboxes == {name: made for name, (made, _) in model.items()}
        assert registry.room == self.LIMIT - len(model) >= 0
        assert set(registry.own()) == {made for made, pool in model.values() if pool is None}
        for pool in ("one", "two"):
            expected = {made for made, owner in model.values() if owner == pool}
            assert set(registry.members([pool])) == expected
        for name in "abcdef":
            tenure = registry.tenure(name)
            assert (tenure and tenure.pool) == model.get(name, (None, None))[1]


TestAnyOrderOfCallsKeepsTheBooks = RegistryMachine.TestCase
TestAnyOrderOfCallsKeepsTheBooks.settings = settings(max_examples=30, stateful_step_count=30)
