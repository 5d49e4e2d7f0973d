"""What the backend holds for one box: its container, and how to learn what it died of."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from sandpool.backends.base import Limits
from sandpool.backends.connection import GuestConnection
from sandpool.backends.docker import bundle, container
from sandpool.backends.docker.demultiplexer import Demultiplexer
from sandpool.backends.docker.engine import Answer, Engine
from sandpool.errors import (
    BackendUnavailable,
    DestroyFailed,
    InvalidSpec,
    ResetFailed,
    Unsupported,
)

_LEAVE_TIMEOUT = 1.0
"""Seconds that a guest whose connection is closed has to end by itself."""
_END_TIMEOUT = 4.0
"""Seconds for one attempt to remove a container."""
_ATTEMPTS = 2
_INQUEST_TIMEOUT = 1.0
"""Seconds for each question; nobody knows that the sandbox is dead before they are answered."""
_LOOK_TIMEOUT = 5.0
_NOT_FOUND = 404
_CONFLICT = 409
_KILLED = 137
_MIB = 1024 * 1024
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Keeper:
    """One container; see `box.Keeper`."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        facts: Mapping[str, Any],
        on_end: Callable[[str], None],
    ) -> None:
        """Keep no container yet; `on_end` gets its id when it is there no more."""
        self._engine = engine
        self._limits = limits
        """What the engine holds it to."""
        self._facts = facts
        self._on_end = on_end
        self.container = ""
        """Its id; empty until there is one."""
        self.is_kept = False
        """Whether the container stays when it has ended."""
        self._connection: GuestConnection | None = None
        self._demultiplexer: Demultiplexer | None = None
        self._inquest: asyncio.Task[None] | None = None
        self._memory_group: Path | None = None
        self._oom_kills = 0
        self._guest: int | None = None
        """The guest's pid on this host; None where a runtime shows others, such as a kernel's."""
        self._died_of_oom = False

    @property
    def info(self) -> Mapping[str, Any]:
        """Facts for people."""
        return {**self._facts, "container_id": self.container}

    @property
    def has_begun(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def begin(self, connection: GuestConnection, demultiplexer: Demultiplexer) -> None:
        """Keep what the container is spoken to through; called once."""
        self._connection = connection
        self._demultiplexer = demultiplexer

    async def find_memory_group(self) -> None:
        """Find the file in which this host's kernel counts its out-of-memory kills, if it is ours.

        An engine on another host, or in a virtual machine, has one that we cannot read; there an
        out-of-memory kill is told only where it ends the whole sandbox.
        """
        answer = await self._engine.request(
            "GET", f"/containers/{self.container}/json", timeout=_LOOK_TIMEOUT
        )
        pid = state_of(answer).get("Pid") if answer.is_ok else None
        if isinstance(pid, int) and pid > 0:
            self._memory_group = _memory_group(pid, self.container)
            self._oom_kills = self._count_oom_kills()
            self._guest = pid if _is_guest(pid) else None

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        """Return the rlimits that belong to `limits`."""
        return container.rlimits(limits)

    async def set_limits(self, limits: Limits) -> None:
        """Have the engine hold the container to what it can change while that runs."""
        old = self._limits
        container.check_change(old, limits, self._facts["limits"])
        if container.resources(old) != container.resources(limits):
            if limits.memory_mb < old.memory_mb:
                await self._check_memory(limits.memory_mb)
            answer = await self._engine.request(
                "POST",
                f"/containers/{self.container}/update",
                body=container.resources(limits),
                timeout=_LOOK_TIMEOUT,
            )
            if not answer.is_ok:
                raise Unsupported(f"limits: the Docker Engine refuses them: {answer.message}")
        self._limits = limits

    async def _check_memory(self, most_mb: int) -> None:
        """Raise `InvalidSpec` where more is used: a kernel may take the limit, and kill for it."""
        answer = await self._engine.request(
            "GET",
            f"/containers/{self.container}/stats",
            query={"stream": "false", "one-shot": "true"},
            timeout=_LOOK_TIMEOUT,
        )
        found: Mapping[str, Any] = answer.fields().get("memory_stats") or {}
        used = found.get("usage")
        if isinstance(used, int) and used > most_mb * _MIB:
            raise InvalidSpec(
                f"limits: memory_mb is {most_mb}, and the sandbox uses {used // _MIB} already"
            )

    def was_oom_killed(self) -> bool:
        """Whether the kernel has killed for memory since the last question."""
        count = self._count_oom_kills()
        changed = count > self._oom_kills
        self._oom_kills = count
        return changed or self._died_of_oom

    def _count_oom_kills(self) -> int:
        if self._memory_group is None:
            return 0
        try:
            found = _OOM_KILLS.search(self._memory_group.read_text())
        except OSError:
            return self._oom_kills
        return int(found[1]) if found is not None else 0

    def check_empty(self) -> None:
        """Raise `ResetFailed` if this host's kernel knows of processes that are not the guest's.

        Where its groups are not ours to read, or a runtime has a kernel of its own between, the
        guest's word has to do, which no tenant can forge: it is out of their reach.
        """
        if self._memory_group is None or self._guest is None:
            return
        try:
            pids = (self._memory_group.parent / "cgroup.procs").read_text().split()
        except OSError as error:
            raise ResetFailed(f"the sandbox's processes cannot be counted: {error}") from error
        left = len(set(pids) - {str(self._guest)})
        if left:
            raise ResetFailed(f"{left} processes are left in the sandbox")

    def hold_inquest(self) -> None:
        """Find out why the stream has ended, and then let the box die of that."""
        if self._inquest is None:
            self._inquest = asyncio.get_running_loop().create_task(self._find_cause())

    async def _find_cause(self) -> None:
        assert self._connection is not None
        try:
            cause = await self._ask_for_cause()
        except BackendUnavailable as error:
            cause = f"its connection ended; {error}"
        self._connection.fail(cause)

    async def _ask_for_cause(self) -> str:
        # Output ends a moment before the engine has noted how the container ended.
        with anyio.move_on_after(_INQUEST_TIMEOUT):
            await self._engine.request(
                "POST", f"/containers/{self.container}/wait", timeout=_INQUEST_TIMEOUT
            )
        answer = await self._engine.request(
            "GET", f"/containers/{self.container}/json", timeout=_INQUEST_TIMEOUT
        )
        if answer.status == _NOT_FOUND:
            return "its container has been removed"
        state = state_of(answer)
        if state.get("Running"):
            return "the Docker Engine closed the connection"
        self._died_of_oom = bool(state.get("OOMKilled"))
        return self._how_it_ended(state)

    def _how_it_ended(self, state: Mapping[str, Any]) -> str:
        status = state.get("ExitCode")
        how = "was killed" if status == _KILLED else f"ended with status {status}"
        said = self._demultiplexer.errors if self._demultiplexer is not None else ""
        reason = state.get("Error") or said
        return f"its first process {how}" + (f": {reason}" if reason else "")

    async def end(self) -> None:
        """Remove the container with all that runs in it; `DestroyFailed` past a bound."""
        task, self._inquest = self._inquest, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
        if self.container:
            # Cancel: what has begun to be removed is; every step of it is bounded.
            with anyio.CancelScope(shield=True):
                await self._remove()
        self._on_end(self.container)

    async def _remove(self) -> None:
        try:
            await self._leave()
            if self.is_kept:
                await self._stop()
            else:
                await remove_container(self._engine, self.container)
        except BackendUnavailable as error:
            raise DestroyFailed(
                f"container {self.container[:12]} may still be there: {error}"
            ) from error

    async def _stop(self) -> None:
        query = {"t": "0"}
        path = f"/containers/{self.container}/stop"
        answer = await self._engine.request("POST", path, query=query, timeout=_END_TIMEOUT)
        if not answer.is_ok and answer.status != _NOT_FOUND:
            raise DestroyFailed(f"a container cannot be stopped: {answer.message}")

    async def _leave(self) -> None:
        """Let the guest end by itself, for a moment.

        An engine that is told to kill a container in the instant in which that ends waits ten
        seconds for an end that it has missed.
        """
        if self._connection is not None:
            with anyio.move_on_after(_LEAVE_TIMEOUT):
                await self._engine.request(
                    "POST", f"/containers/{self.container}/wait", timeout=_END_TIMEOUT
                )


def state_of(answer: Answer) -> Mapping[str, Any]:
    """Return the state of a container that the engine has described."""
    state: Mapping[str, Any] | None = answer.fields().get("State")
    return state or {}


async def remove_container(engine: Engine, container: str) -> None:
    """Kill and remove a container; return once it is gone.

    Raises `DestroyFailed` where it does not go, and `BackendUnavailable`.
    """
    path = f"/containers/{container}"
    for attempt in range(_ATTEMPTS):
        try:
            answer = await engine.request(
                "DELETE", path, query={"force": "1", "v": "1"}, timeout=_END_TIMEOUT
            )
            if answer.status == _CONFLICT:
                # Somebody else is removing it.
                answer = await engine.request(
                    "POST", path + "/wait", query={"condition": "removed"}, timeout=_END_TIMEOUT
                )
        except BackendUnavailable:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        if answer.is_ok or answer.status == _NOT_FOUND:
            return
        raise DestroyFailed(f"container {container[:12]} cannot be removed: {answer.message}")


def _memory_group(pid: int, container: str) -> Path | None:
    """Return the file with the count of kills of the group that `pid` is in.

    None if that process is not the container's: the engine may count pids of another host.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if container not in group:
            continue
        if controllers == "memory":
            found = Path("/sys/fs/cgroup/memory" + group, "memory.oom_control")
        elif controllers == "":
            found = Path("/sys/fs/cgroup" + group, "memory.events")
        else:
            continue
        if found.exists():
            return found
    return None


def _is_guest(pid: int) -> bool:
    """Whether a process of this host is a guest itself, not what a runtime keeps one in."""
    try:
        return bundle.STUB.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
