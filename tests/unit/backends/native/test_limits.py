"""Limits: what is refused, and what holds what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.base import Limits
from sandpool.backends.native import cgroups, limits
from sandpool.errors import InvalidSpec, Unsupported

V1 = cgroups.Hierarchy(1, Path("/v1"), frozenset(("memory", "pids", "cpu")))
V2 = cgroups.Hierarchy(2, Path("/v2"), frozenset(("memory", "pids", "cpu")))


@pytest.mark.parametrize(
    "impossible",
    [
        Limits(memory_mb=1),
        Limits(pids=1),
        Limits(disk_mb=0),
        Limits(inodes=1),
        Limits(open_files=3),
        Limits(cpus=0),
        Limits(cpus=-1),
    ],
)
def test_a_limit_under_which_nothing_can_live_is_refused(impossible: Limits) -> None:
    with pytest.raises(InvalidSpec):
        limits.check(impossible)


@given(st.builds(Limits, memory_mb=st.integers(16, 10**6), pids=st.integers(4, 10**6)))
def test_no_rlimit_is_above_what_was_asked_for(asked: Limits) -> None:
    found = limits.rlimits(asked, frozenset())
    assert found["RLIMIT_NPROC"] == asked.pids
    assert found["RLIMIT_DATA"] == asked.memory_mb << 20


def test_memory_that_a_cgroup_holds_is_not_held_per_process_too() -> None:
    assert "RLIMIT_DATA" not in limits.rlimits(Limits(), frozenset(("memory",)))


@pytest.mark.parametrize("place", [V1, V2], ids=["v1", "v2"])
def test_memory_limits_leave_no_swap(place: cgroups.Hierarchy) -> None:
    written = cgroups.settings(place, Limits(memory_mb=100))
    assert (place.version == 2) == (("memory.swap.max", "0") in written)
    assert (place.version == 1) == (("memory.memsw.limit_in_bytes", str(100 << 20)) in written)


@given(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4))
def test_who_was_promised_more_processor_time_never_gets_the_smaller_share(
    some: float, more: float
) -> None:
    for place, name, most in ((V1, "cpu.shares", 262_144), (V2, "cpu.weight", 10_000)):
        less, greater = (
            int(dict(cgroups.settings(place, Limits(cpus=cpus)))[name])
            for cpus in sorted((some, more))
        )
        assert 2 <= less <= greater <= most


def test_all_but_processor_time_can_be_changed_without_a_cgroup() -> None:
    other = Limits(memory_mb=64, pids=9, disk_mb=8, inodes=100, open_files=64)
    limits.check_change(Limits(), other, frozenset())
    limits.check_change(Limits(), Limits(cpus=0.5), frozenset(("cpu",)))
    with pytest.raises(Unsupported, match="limits: cpus"):
        limits.check_change(Limits(), Limits(cpus=0.5), frozenset())


def test_every_limit_names_its_mechanism() -> None:
    for held in ({}, {"memory": "cgroup v1", "pids": "cgroup v1", "cpu": "cgroup v1"}):
        assert all(limits.mechanisms(held).values())


def test_the_sweep_removes_the_groups_of_the_dead_and_no_others(tmp_path: Path) -> None:
    import os

    started = cgroups._start_time(os.getpid())
    living = tmp_path / f"sandpool-{os.getpid()}-{started}-aa"
    reused = tmp_path / f"sandpool-{os.getpid()}-1-bb"  # our pid, but an earlier process
    dead = tmp_path / "sandpool-4194303-5-cc"
    other = tmp_path / "somebody-else"
    for directory in (living, reused, dead, other):
        (directory / "0").mkdir(parents=True)
    cgroups.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((living.name, other.name))
