"""Which rlimits a sandbox's processes get, and which mechanism holds each limit.

Pure.  A limit that a cgroup holds for the whole sandbox is not repeated per process, except where
the rlimit gives the tenant a better error.
"""

from __future__ import annotations

from sandpool.backends.base import Limits
from sandpool.errors import InvalidSpec, Unsupported

_MIB = 1024 * 1024
_SMALLEST_MEMORY = 16
_SMALLEST_PIDS = 4
_SECOND_PIDS = 4096


def check(limits: Limits) -> None:
    """Raise `InvalidSpec` for limits under which no sandbox can live."""
    for name, value, least in (
        ("memory_mb", limits.memory_mb, _SMALLEST_MEMORY),
        ("pids", limits.pids, _SMALLEST_PIDS),
        ("disk_mb", limits.disk_mb, 1),
        ("inodes", limits.inodes, 64),
        ("open_files", limits.open_files, 16),
    ):
        if value < least:
            raise InvalidSpec(f"{name} is {value}; it must be at least {least}")
    if not limits.cpus > 0:
        raise InvalidSpec(f"cpus is {limits.cpus}; it must be more than 0")


def rlimits(limits: Limits, held_by_cgroup: frozenset[str]) -> dict[str, tuple[int, int]]:
    """Return the rlimits of every process that runs in the sandbox.

    The number of processes is counted per user id of the sandbox's own user namespace, so it holds
    for the sandbox as a whole; beside a cgroup, which is what counts and what a tenancy may change,
    it is a second line well behind the first.  Memory, without a cgroup, is held per process only.
    """
    pids = limits.pids if "pids" not in held_by_cgroup else max(_SECOND_PIDS, 2 * limits.pids)
    found = {
        "RLIMIT_NOFILE": (limits.open_files, limits.open_files),
        "RLIMIT_NPROC": (pids, pids),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (64 * 1024, 64 * 1024),
        "RLIMIT_MSGQUEUE": (64 * 1024, 64 * 1024),
        "RLIMIT_SIGPENDING": (1024, 1024),
    }
    if "memory" not in held_by_cgroup:
        found["RLIMIT_DATA"] = (limits.memory_mb * _MIB, limits.memory_mb * _MIB)
        # What a file in memory has is not data of any process: at least none may be a large one.
        found["RLIMIT_FSIZE"] = (limits.disk_mb * _MIB, limits.disk_mb * _MIB)
    return found


def check_change(old: Limits, new: Limits, held_by_cgroup: frozenset[str]) -> None:
    """Raise `Unsupported` for a change of limits that nothing here can enforce on a warm sandbox.

    A process cannot be given other rlimits from outside, so what rlimits hold stays as it is.
    """
    check(new)
    for name, controller in (("memory_mb", "memory"), ("cpus", "cpu"), ("pids", "pids")):
        if getattr(old, name) != getattr(new, name) and controller not in held_by_cgroup:
            raise Unsupported(
                f"limits: {name} cannot be changed at hand-over: this host lets us make no cgroup "
                f"with {controller}; make a pool for it, or see `sandpool doctor`"
            )
    if new.pids > old.pids and new.pids > max(_SECOND_PIDS, 2 * old.pids):
        raise Unsupported(f"limits: pids can be raised to {max(_SECOND_PIDS, 2 * old.pids)}")
    if new.disk_mb > old.disk_mb and "memory" not in held_by_cgroup:
        raise Unsupported("limits: disk_mb can only be lowered on this host")
    for name in ("inodes", "open_files"):
        if getattr(old, name) != getattr(new, name):
            raise Unsupported(f"limits: {name} cannot be changed at hand-over")


def mechanisms(by_cgroup: dict[str, str]) -> dict[str, str]:
    """Say for each limit what holds it."""
    return {
        "memory": by_cgroup.get("memory", "rlimit data, for each process by itself"),
        "cpus": by_cgroup.get("cpu", "nothing: no writable cgroup with cpu"),
        "pids": "rlimit nproc in a user namespace"
        + (f" and {by_cgroup['pids']}" if "pids" in by_cgroup else ""),
        "disk": "tmpfs size",
        "inodes": "tmpfs nr_inodes",
        "open_files": "rlimit nofile",
    }
