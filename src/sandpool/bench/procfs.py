"""What the kernel says that processes use: processor time, memory, and what it keeps for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """What some processes hold, in MiB."""

    resident: float
    """Each shared page shared out among those who map it (PSS)."""
    private: float
    """Pages that no other process maps and that were written to."""
    tables: float
    """Page tables, which the kernel keeps for them."""


def below(pid: int) -> list[int]:
    """Return the processes that come from `pid`, itself left out."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(other)[1]), []).append(other)
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def in_sandboxes() -> list[int]:
    """Return our descendants that are in a sandbox: two pid namespaces down from ours."""
    ours = _depth(os.getpid())
    return [pid for pid in below(os.getpid()) if _depth(pid) == ours + 2]


def processor_seconds(pid: int) -> float:
    """Return what a process and all below it have used, those that have ended included."""
    return sum(map(int, _stat(pid)[11:13])) / _TICKS + processor_seconds_below(pid)


def processor_seconds_below(pid: int) -> float:
    """Return what all below a process have used, those that have ended included."""
    ticks = sum(map(int, _stat(pid)[13:15]))
    for each in below(pid):
        with contextlib.suppress(OSError):
            # Its own, and that of the children that it has reaped: none is lost with its process.
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / _TICKS


def memory(pids: Iterable[int]) -> Memory | None:
    """Return what these hold together; None if we may not know, as only root may of other users."""
    resident = private = tables = 0
    for pid in pids:
        try:
            rollup = _fields(_PROC / str(pid) / "smaps_rollup")
            status = _fields(_PROC / str(pid) / "status")
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            return None
        resident += rollup["Pss"]
        private += rollup["Private_Dirty"]
        tables += status.get("VmPTE", 0)
    return Memory(resident / 1024, private / 1024, tables / 1024)


def resident_mib(pid: int) -> float:
    """Return the memory of one process, in MiB."""
    return _fields(_PROC / str(pid) / "status")["VmRSS"] / 1024


def slab_mib() -> float:
    """Return what the kernel keeps for everybody on this host in slabs, in MiB."""
    return _fields(_PROC / "meminfo")["Slab"] / 1024


def available_mib() -> float:
    """Return the memory that is still to be had on this host, in MiB."""
    return _fields(_PROC / "meminfo")["MemAvailable"] / 1024


def dying_cgroups() -> int:
    """Return the control groups that were removed and that the kernel has not let go of yet."""
    for root in (_CGROUPS, _CGROUPS / "unified"):
        with contextlib.suppress(OSError, KeyError):
            lines = (root / "cgroup.stat").read_text().splitlines()
            if "memory" in (root / "cgroup.controllers").read_text().split():
                return int(dict(line.split() for line in lines)["nr_dying_descendants"])
    with contextlib.suppress(OSError):
        # Version 1 counts those that are held, and shows those that are there.
        for line in (_PROC / "cgroups").read_text().splitlines():
            name, _, count, _ = line.split("\t")
            if name == "memory":
                there = sum(1 for _ in os.walk(_CGROUPS / "memory"))
                return max(0, int(count) - there)
    return 0


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """Return the fields of a process's `stat` after its name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _depth(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    return 0


def _fields(path: Path) -> dict[str, int]:
    """Return the values that a file of the kernel's gives in kilobytes, by their names."""
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words[1:] == ["kB"]:
            found[name] = int(words[0])
    return found
