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
GROUPED = "memory_mb", "cpus", "pids"
"""What a cgroup can hold."""
MOUNTED = "disk_mb", "inodes"
"""What the file system of the writable places holds."""


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


def rlimits(limits: Limits, held_by_cgroup: frozenset[str]) -> dict[str, int]:
    """Return the rlimits, soft and hard, of every process that runs in the sandbox.

    The number of processes is counted per user id of the sandbox's own user namespace, so it holds
    for the sandbox as a whole; beside a cgroup, which is what counts, it is a second line well
    behind the first.  Memory, without a cgroup, is held per process only.
    """
    found = {
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": (
            limits.pids if "pids" not in held_by_cgroup else max(_SECOND_PIDS, 2 * limits.pids)
        ),
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
        "RLIMIT_MSGQUEUE": 64 * 1024,
        "RLIMIT_SIGPENDING": 1024,
    }
    if "memory" not in held_by_cgroup:
        found["RLIMIT_DATA"] = limits.memory_mb * _MIB
        # What a file in memory has is not data of any process: at least none may be a large one.
        found["RLIMIT_FSIZE"] = limits.disk_mb * _MIB
    return found


def check_change(old: Limits, new: Limits, held_by_cgroup: frozenset[str]) -> None:
    """Raise `Unsupported` for a change of limits that nothing here could enforce."""
    check(new)
    if old.cpus != new.cpus and "cpu" not in held_by_cgroup:
        raise Unsupported(
            "limits: cpus cannot be changed at hand-over: this host lets us make no cgroup with "
            "cpu, and nothing else holds it; see `sandpool doctor`"
        )


def differ(old: Limits, new: Limits, *names: str) -> bool:
    """Whether they differ in one of these."""
    return any(getattr(old, name) != getattr(new, name) for name in names)


def too_small(wanted: Limits) -> str:
    """Say why the kernel does not let the writable places be as small as `wanted` has it."""
    return (
        f"limits: disk_mb is {wanted.disk_mb} and inodes {wanted.inodes}, "
        "and the sandbox has more in it already"
    )


def mechanisms(by_cgroup: dict[str, str]) -> dict[str, str]:
    """Say for each limit what holds it."""
    return {
        "memory": by_cgroup.get("memory", "rlimit data, for each process by itself"),
        "cpus": by_cgroup.get("cpu", "nothing: no writable cgroup with cpu"),
        "pids": "rlimit nproc in a user namespace"
        + (f" and {by_cgroup['pids']}" if "pids" in by_cgroup else ""),
        "disk": "tmpfs size",
        "inodes": "tmpfs nr_inodes",
        "open_files": "rlimit nofile, for each process by itself",
        "output": "what a run may keep, counted by its guest and by this process",
        "wall_time": "what a run may take, by its guest's clock; past it, by this process's",
    }
