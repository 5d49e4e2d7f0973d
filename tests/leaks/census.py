"""Counts what a sandbox could leave behind on this machine."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_TEMPLATES = re.compile(r"/tmp(/(old|new)(/.*)?)?|.*sandpool.*")


@dataclass(frozen=True)
class Census:
    """Everything that this process is answerable for."""

    descendants: frozenset[int]
    descriptors: int
    mounts: tuple[str, ...]
    cgroups: frozenset[str]


def descendants(pid: int) -> frozenset[int]:
    """Return every living process below `pid`; zombies count, they have to be reaped too."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found: set[int] = set()
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found.update(below)
        queue += below
    return frozenset(found)


def take(*ended: int) -> Census:
    """Count now, with what processes that have `ended` left of control groups."""
    return Census(
        descendants=descendants(os.getpid()),
        descriptors=len(os.listdir("/proc/self/fd")),
        mounts=_mounts(),
        cgroups=_cgroups(descendants(os.getpid()) | {os.getpid(), *ended}),
    )


def _mounts() -> tuple[str, ...]:
    """Return the places, in this namespace, where a template mounts; others run containers here."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = sorted(line.split()[4] for line in lines)
    return tuple(place for place in places if _TEMPLATES.fullmatch(place))


def _cgroups(makers: frozenset[int]) -> frozenset[str]:
    """Return the groups that these processes made; others run sandboxes here too."""
    return frozenset(
        str(path)
        for pattern in ("sandpool-*", "*/sandpool-*")
        for path in _CGROUPS.glob(pattern)
        if int(path.name.split("-")[1]) in makers
    )


def settle(before: Census, *, within: float = 30.0) -> Census:
    """Return the census once it equals `before`, or as it is after `within` seconds."""
    until(lambda: take() == before, within)
    return take()


def until(condition: Callable[[], bool], within: float) -> bool:
    """Wait for a condition of the kernel's, which no event announces; True if it came about."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.02)
    return True
