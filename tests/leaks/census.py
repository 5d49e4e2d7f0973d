"""Counts what a sandbox could leave behind on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Census:
    """Everything that this process is answerable for."""

    descendants: frozenset[int]
    descriptors: int
    mounts: int
    cgroups: frozenset[str]
    temporary: frozenset[str]


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


def take() -> Census:
    """Count now."""
    return Census(
        descendants=descendants(os.getpid()),
        descriptors=len(os.listdir("/proc/self/fd")),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        cgroups=frozenset(str(path) for path in _CGROUPS.glob("*/sandpool-*"))
        | frozenset(str(path) for path in _CGROUPS.glob("sandpool-*")),
        temporary=frozenset(name for name in os.listdir("/tmp") if "sandpool" in name),
    )


def settle(before: Census, *, within: float = 5.0) -> Census:
    """Return the census once it equals `before`, or as it is after `within` seconds."""
    now = take()
    until(lambda: take() == before, within)
    now = take()
    return now


def until(condition: Callable[[], bool], within: float) -> bool:
    """Wait for a condition of the kernel's, which no event announces; True if it came about."""
    deadline = time.monotonic() + within
    pause = os.eventfd(0)
    try:
        while not condition():
            if time.monotonic() > deadline:
                return False
            _pause(pause, 0.02)
    finally:
        os.close(pause)
    return True


def _pause(fd: int, seconds: float) -> None:
    import select

    select.select([fd], [], [], seconds)
