"""Whose a container is, and whether its owner still lives: labels, and decisions on them.

A container's labels name the program that made it: its process, as the kernel that runs it knows
it.  Only that kernel can be asked whether the process lives, so of other hosts' containers, and of
those of other process id namespaces, no more is removed than what has long ended by itself: a
container ends with its owner's connection.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

OWNER = "sandpool.owner"
"""The backend that made the container; unlike all others that ever were."""
SANDBOX = "sandpool.sandbox"
_KEPT = "sandpool.kept-of"
_BOOT = "sandpool.boot"
_NAMESPACE = "sandpool.pid-namespace"
_PROCESS = "sandpool.process"

ABANDONED_AFTER = 3600.0
"""Seconds after its end when a container is removed though nobody can say who lives."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One backend in one process."""

    name: str
    boot: str
    """The boot of the kernel that its process runs on."""
    namespace: str
    """The process id namespace in which `process` means something."""
    process: str
    """Its pid and its start time, which tells it from a later process of that pid."""

    def labels(self, sandbox: str, *, is_kept: bool = False) -> dict[str, str]:
        """Return the labels of a container that it makes.

        One that is to be kept has no owner: nobody but its user removes it.
        """
        return {
            _KEPT if is_kept else OWNER: self.name,
            SANDBOX: sandbox,
            _BOOT: self.boot,
            _NAMESPACE: self.namespace,
            _PROCESS: self.process,
        }


def this_process() -> Owner:
    """Return a new owner for this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = str(Path("/proc/self/ns/pid").readlink())
    process = f"{os.getpid()}:{start_time(os.getpid())}"
    return Owner(secrets.token_hex(8), boot, namespace, process)


def start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if there is none of this pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def read_owner(labels: Mapping[str, str]) -> Owner | None:
    """Return whose a container with these labels is; None if it is none of ours."""
    found = [labels.get(label) for label in (OWNER, _BOOT, _NAMESPACE, _PROCESS)]
    name, boot, namespace, process = found
    if name is None or boot is None or namespace is None or process is None:
        return None
    return Owner(name, boot, namespace, process)


def is_orphan(
    owner: Owner,
    asking: Owner,
    *,
    ended_for: float | None,
    start_time_of: Callable[[int], str | None] = start_time,
) -> bool:
    """Whether a container may be removed: nobody alive owns it.

    `ended_for` is for how many seconds it has not been running; None if it runs.
    """
    if (owner.boot, owner.namespace) == (asking.boot, asking.namespace):
        pid, _, started = owner.process.partition(":")
        return not pid.isdigit() or start_time_of(int(pid)) != started
    return ended_for is not None and ended_for > ABANDONED_AFTER


def seconds_since(moment: str, now: datetime) -> float | None:
    """Return how long ago an engine's time was; None for "never" and for what is no time.

    An engine tells times by its host's clock, and there is no other to measure this by.
    """
    try:
        # Without its fraction, which has more digits than Python reads.
        then = datetime.fromisoformat(re.sub(r"\.\d+", "", moment))
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return None if then.year == 1 else (now - then).total_seconds()
