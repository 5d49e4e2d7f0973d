"""Which rlimits a sandbox's processes get, and which mechanism holds each limit.

Pure.  A limit that a cgroup holds for the whole sandbox is not repeated per process, except where
the rlimit gives the tenant a better error.
"""

from __future__ import annotations

from sandpool.backends.base import Limits
from sandpool.errors import InvalidSpec

_MIB = 1024 * 1024
_SMALLEST_MEMORY = 16
_SMALLEST_PIDS = 4


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
    for the sandbox as a whole.  Memory, without a cgroup, is held per process only.
    """
    found = {
        "RLIMIT_NOFILE": (limits.open_files, limits.open_files),
        "RLIMIT_NPROC": (limits.pids, limits.pids),
        "RLIMIT_FSIZE": (limits.disk_mb * _MIB, limits.disk_mb * _MIB),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (64 * 1024, 64 * 1024),
        "RLIMIT_MSGQUEUE": (64 * 1024, 64 * 1024),
        "RLIMIT_SIGPENDING": (1024, 1024),
    }
    if "memory" not in held_by_cgroup:
        found["RLIMIT_DATA"] = (limits.memory_mb * _MIB, limits.memory_mb * _MIB)
    return found


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
