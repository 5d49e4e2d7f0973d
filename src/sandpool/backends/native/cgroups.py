"""Control groups for sandboxes: memory, processes and processor time that hold for a whole sandbox.

Version 2 where it has the controllers, version 1 where that is all there is.  Where we may make
neither, `find` says why, and rlimits are what is left (`limits.py`).

Attaching a process alone costs milliseconds of waiting (the kernel waits for an RCU grace period),
and almost nothing in a batch, so a worker thread attaches all that wait, at refill, never on the
path of a claim; who comes while it is at work goes along next time.  Groups are reused.

    G1  A slot is free, or held by one sandbox from `take` until no process of it is left.
    G2  Every directory that we make lies in one named after this process, so that a template that
        outlives us, or the next manager on this host, can tell whose it was and remove it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from sandpool.backends.base import Limits
from sandpool.errors import InvalidSpec

_MOUNTS = Path("/sys/fs/cgroup")
_NEEDED = ("memory", "pids", "cpu")
_PERIOD = 100_000
_MIB = 1024 * 1024
_LEFTOVER = 16 * _MIB
"""Bytes that may still be charged to a group for it to be used again."""
_MOST_SETTLING = 16
"""Slots that are charged with more and are not used for that reason."""
_CACHED = (b"inactive_file", b"active_file", b"total_inactive_file", b"total_active_file")
"""Lines of `memory.stat`, in either version: what the kernel takes back before it refuses any."""
PREFIX = "sandpool-"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One place where groups can be made."""

    version: int
    parent: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Found:
    """What this host offers."""

    hierarchies: tuple[Hierarchy, ...]
    missing: str | None
    """Why some limit cannot be held by a group; None if all can."""

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that we can use."""
        return frozenset[str]().union(*(found.controllers for found in self.hierarchies))


def find(mounts: Path = _MOUNTS) -> Found:
    """Look for hierarchies in which this process may make groups; changes nothing."""
    found = _find_v2(mounts) or _find_v1(mounts)
    have = frozenset[str]().union(*(place.controllers for place in found))
    lacking = [name for name in _NEEDED if name not in have]
    if not lacking:
        return Found(tuple(found), None)
    reason = "no writable cgroup with " + ", ".join(lacking)
    if os.geteuid() != 0:
        reason += (
            " (run as root, or in a delegated scope: systemd-run --user --scope -p Delegate=yes)"
        )
    return Found(tuple(found), reason)


def _find_v2(mounts: Path) -> list[Hierarchy]:
    own = _own_group("0::")
    for mount in (mounts, mounts / "unified"):
        if own is None or not (mount / "cgroup.controllers").exists():
            continue
        here = mount / own.lstrip("/")
        for candidate in (here, *here.parents):
            if candidate != mount and mount not in candidate.parents:
                break
            enabled = _words(candidate / "cgroup.subtree_control")
            available = _words(candidate / "cgroup.controllers")
            # Only the root group may both hold processes and pass controllers on.
            wanted = available if candidate == mount and os.geteuid() == 0 else enabled
            if set(_NEEDED) <= wanted and os.access(candidate, os.W_OK):
                return [Hierarchy(2, candidate, frozenset(_NEEDED))]
    return []


def _find_v1(mounts: Path) -> list[Hierarchy]:
    places: dict[Path, set[str]] = {}
    for name in _NEEDED:
        own = _own_group(name)
        mount = (mounts / name).resolve()
        if own is None or not (mount / "cgroup.procs").exists():
            continue
        here = mount / own.lstrip("/")
        here = here if here.is_dir() else mount
        if os.access(here, os.W_OK):
            places.setdefault(here, set()).add(name)
    return [Hierarchy(1, place, frozenset(names)) for place, names in places.items()]


def _own_group(controller: str) -> str | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if f"{number}::" == controller or controller in names.split(","):
            return path
    return None


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


class Slot:
    """One sandbox's groups, one directory in each hierarchy."""

    def __init__(self, number: int) -> None:
        """Make it; `Cgroups` does."""
        self.number = number
        self.limits: Limits | None = None
        self.oom_kills = 0
        """The groups' count of out-of-memory kills when this holder took it."""


class Cgroups:
    """The groups of one manager process.  Its methods block for file operations unless async."""

    def __init__(self, found: Found) -> None:
        """Make nothing yet."""
        self._found = found
        self._name = f"{PREFIX}{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(4)}"
        self._free: list[Slot] = []  # Invariant G1
        self._settling: list[Slot] = []
        """Free as well, but charged with what their last sandbox has left behind."""
        self._made = 0
        self._is_open = False
        self._waiting: list[tuple[Slot, int]] = []
        """Processes that are to be attached, and that no thread has taken."""
        self._turn = anyio.Lock()

    @property
    def name(self) -> str:
        """The name of every directory that it makes, and of whatever else of this process."""
        return self._name

    @property
    def roots(self) -> list[tuple[str, str]]:
        """The (parent, name) of every directory that has to go when this process does."""
        return [(str(place.parent), self._name) for place in self._found.hierarchies]

    def open(self) -> None:
        """Make this manager's directories, after removing those of managers that are gone."""
        if self._is_open:
            return
        for place in self._found.hierarchies:
            sweep(place.parent)
            if place.version == 2:
                _enable(place.parent)
            own = place.parent / self._name
            own.mkdir(exist_ok=True)
            if place.version == 2:
                _enable(own)
        self._is_open = True

    def take(self, limits: Limits) -> Slot:
        """Return a slot with `limits` set."""
        if not self._free:
            self._settle()
        if self._free:
            slot = self._free.pop()
        else:
            slot = Slot(self._made)
            self._made += 1
            for place in self._found.hierarchies:
                Path(self._directory(place, slot)).mkdir(exist_ok=True)
        if slot.limits != limits:
            self._set(slot, limits)
        slot.oom_kills = self._count_oom_kills(slot)
        return slot

    def _settle(self) -> None:
        """Free the slots that are charged with little by now, and the oldest of too many."""
        waiting, self._settling = self._settling, []
        for slot in waiting:
            self.give_back(slot)
        if len(self._settling) > _MOST_SETTLING:
            # It may be what many share, such as pages of the image's files, and never go.
            self._free.append(self._settling.pop(0))

    async def change(self, slot: Slot, limits: Limits) -> None:
        """Hold what is in a slot to other limits.

        Raises `InvalidSpec` where it uses more memory already; then the old ones hold.
        """
        await anyio.to_thread.run_sync(self._change, slot, limits)

    def _change(self, slot: Slot, limits: Limits) -> None:
        old = slot.limits
        assert old is not None
        most = limits.memory_mb * _MIB
        used = self._used(slot)
        # Version 2 would take a limit below what is used, and kill for it; version 1 refuses it.
        if used <= most or limits.memory_mb == old.memory_mb:
            # Invariant G1 does not say with which limits; should this fail, `take` sets them anew.
            slot.limits = None
            self._set(slot, limits)
            if self._memory(slot, "memory.max", "memory.limit_in_bytes") <= most:
                return
            self._set(slot, old)
        raise InvalidSpec(
            f"limits: memory_mb is {limits.memory_mb}, and the sandbox uses {used // _MIB} already"
        )

    def _used(self, slot: Slot) -> int:
        """Return the bytes that are in use, without what is only cached of files."""
        used = self._memory(slot, "memory.current", "memory.usage_in_bytes")
        return used if used <= _LEFTOVER else used - self._cached(slot)

    def _cached(self, slot: Slot) -> int:
        for place in self._found.hierarchies:
            if "memory" in place.controllers:
                table = Path(self._directory(place, slot), "memory.stat").read_bytes()
                lines = dict(line.split(b" ", 1) for line in table.splitlines())
                if place.version == 1:
                    lines = {key: value for key, value in lines.items() if key[:6] == b"total_"}
                return sum(int(lines.get(key, 0)) for key in _CACHED)
        return 0

    def _memory(self, slot: Slot, in_2: str, in_1: str) -> int:
        """Read the file of that name in either version; 0 where no group holds memory."""
        for place in self._found.hierarchies:
            if "memory" in place.controllers:
                name = in_2 if place.version == 2 else in_1
                return int(_read(f"{self._directory(place, slot)}/{name}"))
        return 0

    def give_back(self, slot: Slot) -> None:
        """Free a slot whose sandbox has no process left."""
        # What is still charged to it, pages of a file system on its way out, would be the next
        # one's to bear.
        try:
            is_settled = self._used(slot) <= _LEFTOVER
        except OSError:
            return  # it has been removed with all the others
        (self._free if is_settled else self._settling).append(slot)

    async def attach(self, slot: Slot, pid: int) -> None:
        """Put a process into a slot's groups, in one batch with all that wait at that moment."""
        entry = slot, pid
        self._waiting.append(entry)
        try:
            async with self._turn:
                # Who had the turn before us may have taken us along.
                if entry in self._waiting:
                    batch, self._waiting = self._waiting, []
                    await anyio.to_thread.run_sync(self._attach, batch)
        except BaseException:
            # Cancel: the process is on its way out, and nobody waits for this any more.
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def _attach(self, batch: list[tuple[Slot, int]]) -> None:
        for place in self._found.hierarchies:
            for slot, pid in batch:
                # A process that died meanwhile needs no limits; its connection tells its owner.
                with suppress(ProcessLookupError):
                    _write(self._directory(place, slot) + "/cgroup.procs", str(pid))

    def was_oom_killed(self, slot: Slot) -> bool:
        """Say whether the kernel killed for memory here since the slot was taken or last asked."""
        count = self._count_oom_kills(slot)
        changed = count > slot.oom_kills
        slot.oom_kills = count
        return changed

    def close(self) -> None:
        """Remove every directory; those still in use are left to the template or the next sweep."""
        if not self._is_open:
            return
        for place in self._found.hierarchies:
            _remove(place.parent / self._name)
        self._is_open = False
        self._free.clear()
        self._settling.clear()
        self._made = 0

    def describe(self) -> dict[str, str]:
        """Say which mechanism holds which limit."""
        return {
            name: f"cgroup v{place.version}"
            for place in self._found.hierarchies
            for name in sorted(place.controllers)
        }

    def _directory(self, place: Hierarchy, slot: Slot) -> str:
        # As text, like all that is done for every sandbox: paths as objects cost ten times as much.
        return f"{place.parent}/{self._name}/{slot.number}"

    def _set(self, slot: Slot, limits: Limits) -> None:
        for place in self._found.hierarchies:
            directory = self._directory(place, slot)
            for name, value in settings(place, limits):
                _write(f"{directory}/{name}", value)
        slot.limits = limits

    def _count_oom_kills(self, slot: Slot) -> int:
        for place in self._found.hierarchies:
            if "memory" in place.controllers:
                name = "memory.events" if place.version == 2 else "memory.oom_control"
                try:
                    table = _read(f"{self._directory(place, slot)}/{name}")
                except OSError:
                    return 0
                for line in table.splitlines():
                    key, _, value = line.partition(b" ")
                    if key == b"oom_kill":
                        return int(value)
        return 0


def settings(place: Hierarchy, limits: Limits) -> list[tuple[str, str]]:
    """Return the files to write for `limits`, in the order in which the kernel accepts them."""
    memory, quota = limits.memory_mb * _MIB, int(limits.cpus * _PERIOD)
    if place.version == 2:
        return [
            ("memory.max", str(memory)),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "0"),
            ("pids.max", str(limits.pids)),
            ("cpu.max", f"{quota} {_PERIOD}"),
            ("cpu.weight", str(_share(limits.cpus, 100, 10_000))),
        ]
    wanted: list[tuple[str, str]] = []
    if "memory" in place.controllers:
        # Lowering needs the one order, raising the other; the first write may fail for that reason.
        wanted += [
            ("memory.limit_in_bytes", str(memory)),
            ("memory.memsw.limit_in_bytes", str(memory)),
            ("memory.limit_in_bytes", str(memory)),
            ("memory.swappiness", "0"),
        ]
    if "pids" in place.controllers:
        wanted.append(("pids.max", str(limits.pids)))
    if "cpu" in place.controllers:
        wanted += [
            ("cpu.cfs_period_us", str(_PERIOD)),
            ("cpu.cfs_quota_us", str(quota)),
            ("cpu.shares", str(_share(limits.cpus, 1024, 262_144))),
        ]
    return wanted


def _share(cpus: float, of_one: int, most: int) -> int:
    """Return the weight for `cpus` where one processor weighs `of_one`, within what a kernel takes.

    Where sandboxes want more than there is, each gets its part of it by what it was promised.
    """
    return max(2, min(most, round(cpus * of_one)))


def sweep(parent: Path) -> None:
    """Remove the groups of managers that are gone; those of living ones are not touched."""
    for directory in parent.glob(f"{PREFIX}*-*-*"):
        pid, started = directory.name.removeprefix(PREFIX).split("-")[:2]
        if pid.isdigit() and _start_time(int(pid)) != started:
            _remove(directory)


def _remove(directory: Path) -> None:
    with suppress(OSError):
        for child in directory.iterdir():
            if child.is_dir():
                with suppress(OSError):
                    child.rmdir()
        directory.rmdir()


def _enable(directory: Path) -> None:
    _write(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in _NEEDED))


def _start_time(pid: int) -> str:
    """Return the kernel's start time of a process, which tells it from a later one with its pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[19]


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # an interface that this kernel was built without, such as swap accounting
    try:
        os.write(fd, text.encode())
    except OSError:
        if not path.endswith(("/memory.limit_in_bytes", "/memory.memsw.limit_in_bytes")):
            raise
    finally:
        os.close(fd)
