"""What a template remembers of its sandboxes, in memory that it shares with compiled code."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.backends.native import template
from sandpool.backends.native.template import networks
from sandpool.backends.native.template.calls import Slots
from sandpool.backends.native.template.forking import Forking
from tests.compilers import compile_with_sanitizers

PIDS = st.integers(1, 400)


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> Forking:
    monkeypatch.setattr("sandpool.backends.native.template.forking.PROC", "/proc")
    return Forking(0, 1, Slots())


@pytest.fixture(scope="module")
def shared() -> Iterator[Forking]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandpool.backends.native.template.forking.PROC", "/proc")
        made = Forking(0, 1, Slots())
        yield made
        os.close(made.layout.proc)


@given(steps=st.lists(st.tuples(st.booleans(), PIDS), max_size=600))
@settings(max_examples=60, deadline=None)
def test_children_are_known_from_their_fork_to_their_end(
    shared: Forking, steps: list[tuple[bool, int]]
) -> None:
    """Invariant T1, against a dictionary."""
    for pid in shared.pids():
        shared.remove(pid)
    model: dict[int, tuple[int, int | None]] = {}
    for number, (is_fork, pid) in enumerate(steps, start=1):
        if is_fork and pid not in model:
            network = pid + 1000 if pid % 2 else None
            shared.add(number, pid, network)
            model[pid] = number, network
        elif not is_fork:
            assert shared.remove(pid) == model.pop(pid, None)
        assert sorted(shared.pids()) == sorted(model)
    for pid, (number, _) in model.items():
        assert shared.pid(number) == pid
    assert shared.pid(len(steps) + 1) is None


def test_more_children_than_there_were_places_for_are_all_known(forking: Forking) -> None:
    for number in range(1, 1001):
        forking.add(number, 10_000 + number, number)
    assert forking.layout.child_count == 1000 <= forking.layout.places
    assert forking.layout.children[999].pid == 11_000, "compiled code finds them where they are"
    assert forking.pid(1000) == 11_000
    assert forking.remove(10_001) == (1, 1)
    forking.add(1001, 5, None)
    assert forking.layout.child_count == 1000, "a place that is free again is taken first"


def test_user_namespaces_are_found_by_the_first_of_their_ids(forking: Forking) -> None:
    for base in range(0, 70_000, 100):
        forking.keep_user(base, base + 7)
    assert forking.user(69_900) == 69_907
    assert forking.user(69_901) is None
    assert forking.layout.users[699].base == 69_900
    assert forking.layout.places_of_users >= forking.layout.user_count == 700


WORDS = b" alloc 12| mem 3| memory 0| orphan 7| mem x| inuse 4| mem| memory| |9|TCP:|\n| alloc  5"
SHOWN = st.lists(st.sampled_from(WORDS.split(b"|")), max_size=30).map(b"".join)


@pytest.fixture(scope="module")
def remove_global(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("remove_global.c")
    made = tmp_path_factory.mktemp("forking") / "remove_global"
    compile_with_sanitizers(source, made, Path(template.__file__).parent)
    return made


@given(tables=st.lists(SHOWN, min_size=1, max_size=200))
@settings(max_examples=20, deadline=None)
def test_compiled_code_and_python_leave_the_same_of_a_table(
    remove_global: Path, tables: list[bytes]
) -> None:
    expected = [re.sub(networks._GLOBAL, b"", table) for table in tables]
    done = subprocess.run(
        [remove_global],
        input=b"".join(len(table).to_bytes(4, "little") + table for table in tables),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout
    for one in expected:
        size = int.from_bytes(told[:4], "little")
        assert told[4 : 4 + size] == one
        told = told[4 + size :]
    assert not told
