"""Who may remove which container."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sandpool.backends.docker import owners
from sandpool.backends.docker.owners import Owner

US = Owner(name="us", boot="boot-1", namespace="pid:[1]", process="100:5000")
THEM = replace(US, name="them", process="200:7000")


def alive(**processes: str) -> dict[int, str]:
    return {int(pid.removeprefix("p")): started for pid, started in processes.items()}


@pytest.mark.parametrize("ended_for", [None, 0.0, 1e6])
def test_a_living_process_keeps_its_containers_whatever_their_state(
    ended_for: float | None,
) -> None:
    table = alive(p200="7000").get
    assert not owners.is_orphan(THEM, US, ended_for=ended_for, start_time_of=table)


@pytest.mark.parametrize("table", [alive(), alive(p200="9999")], ids=["gone", "a later process"])
def test_what_a_dead_process_had_is_removed_even_while_it_runs(table: dict[int, str]) -> None:
    assert owners.is_orphan(THEM, US, ended_for=None, start_time_of=table.get)


@pytest.mark.parametrize("change", [{"boot": "boot-2"}, {"namespace": "pid:[2]"}])
def test_of_processes_that_we_cannot_see_only_what_ended_long_ago_is_removed(
    change: dict[str, str],
) -> None:
    foreign = replace(THEM, **change)
    for ended_for, expected in ((None, False), (3600.0, False), (3601.0, True)):
        found = owners.is_orphan(foreign, US, ended_for=ended_for, start_time_of=alive().get)
        assert found is expected


def test_labels_say_who_the_owner_is() -> None:
    assert owners.read_owner(US.labels("a-sandbox")) == US


@pytest.mark.parametrize("labels", [{}, {"sandpool.owner": "x"}, {"maintainer": "somebody"}])
def test_other_people_s_labels_are_of_no_owner(labels: dict[str, str]) -> None:
    assert owners.read_owner(labels) is None


def test_this_process_is_alive() -> None:
    us = owners.this_process()
    assert not owners.is_orphan(us, owners.this_process(), ended_for=None)
    assert us.name != owners.this_process().name
    assert owners.start_time(os.getpid()) is not None


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 60.0),
        ("2026-01-01T00:00:30.123456789Z", 30.0),
        ("2026-01-01T01:00:00+01:00", 60.0),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("None", None),
    ],
)
def test_an_engine_s_times_are_read(moment: str, seconds: float | None) -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert owners.seconds_since(moment, now) == seconds
