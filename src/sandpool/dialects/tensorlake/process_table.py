"""`ProcessTable`: the processes of one sandbox, those that have ended for a while longer.

T1  What is kept of ended processes is bounded, in their number and in their output's size;
    the oldest go first.
T2  A name belongs to one managed process; one that is stopped gives it up to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.process_models import ProcessInfo, RunRequest, StartRequest
from sandpool.dialects.tensorlake.process_record import ProcessRecord
from sandpool.dialects.tensorlake.supervisor import Supervisor
from sandpool.errors import InvalidSpec, NoCapacity, ProcessNotFound
from sandpool.service import Sandbox

Spawn = Callable[[Callable[[], Awaitable[object]]], None]
"""Starts a task that outlives the request that asked for it."""

_MOST_RUNNING = 1_024
_MOST_ENDED = 256
_MOST_OUTPUT = 16 * 1024 * 1024
"""Bytes of output that are kept of processes that have ended."""


class ProcessTable:
    """Processes by the number that they have in their sandbox."""

    def __init__(self) -> None:
        """Begin empty."""
        self._records: dict[int, ProcessRecord] = {}
        self._supervisors: dict[str, Supervisor] = {}  # Invariant T2
        self._handles = itertools.count(1)

    def all(self) -> list[ProcessInfo]:
        """Describe them all, oldest first."""
        return [self.describe(record) for record in self._records.values()]

    def running(self) -> list[ProcessRecord]:
        """Return those that have not ended."""
        return [record for record in self._records.values() if not record.is_over]

    def find(self, key: str) -> ProcessRecord:
        """Return a process by its id or its name, the newest of them; `ProcessNotFound`."""
        if key in self._supervisors:
            return self._supervisors[key].current
        for record in reversed(self._records.values()):
            if str(record.pid) == key:
                return record
        raise ProcessNotFound(f"there is no process {key}, or it ended long ago")

    def describe(self, record: ProcessRecord) -> ProcessInfo:
        """Describe a process, with what looks after it."""
        supervisor = self._supervisor(record)
        return record.info() if supervisor is None else supervisor.info()

    async def start(
        self, sandbox: Sandbox, wanted: RunRequest, *, clock: Clock, spawn: Spawn
    ) -> ProcessRecord:
        """Start a command in its sandbox, follow it to its end, and look after it if asked to.

        Raises `NoCapacity`, `InvalidSpec`, and what `Sandbox.start_process` does.
        """
        if not isinstance(wanted, StartRequest) or not wanted.is_managed:
            return await self._launch(sandbox, wanted, clock, spawn)
        known = self._supervisors.get(wanted.name) if wanted.name is not None else None
        if known is not None and not known.is_stopped:
            raise InvalidSpec(f"name: there is a process {wanted.name!r} already")
        supervisor = Supervisor(
            next(self._handles),
            wanted,
            launch=lambda again: self._launch(sandbox, again, clock, spawn),
            dial=sandbox.dial,
            clock=clock,
        )
        await supervisor.begin()
        self._supervisors[supervisor.id] = supervisor
        spawn(supervisor.run)
        return supervisor.current

    async def restart(self, record: ProcessRecord) -> ProcessRecord:
        """End a managed process's run and start another; `InvalidSpec` for any other process."""
        supervisor = self._supervisor(record)
        if supervisor is None or supervisor.is_stopped:
            raise InvalidSpec("only a managed process that is not stopped can be restarted")
        return await supervisor.restart()

    async def kill(self, record: ProcessRecord) -> None:
        """End a process; a managed one is not started again."""
        supervisor = self._supervisor(record)
        await (record.kill() if supervisor is None else supervisor.stop())

    def _supervisor(self, record: ProcessRecord) -> Supervisor | None:
        for supervisor in self._supervisors.values():
            if supervisor.current is record:
                return supervisor
        return None

    async def _launch(
        self, sandbox: Sandbox, wanted: RunRequest, clock: Clock, spawn: Spawn
    ) -> ProcessRecord:
        if len(self.running()) >= _MOST_RUNNING:
            raise NoCapacity(f"{_MOST_RUNNING} processes of this sandbox are running")
        process = await sandbox.start_process(
            [wanted.command, *wanted.args],
            env=wanted.env,
            cwd=wanted.working_dir,
            timeout=wanted.timeout,
        )
        # Cancel: nothing is awaited until the process is followed, and so killed at its end.
        has_stdin, is_recorded = False, (True, True)
        if isinstance(wanted, StartRequest):
            has_stdin = wanted.stdin_mode == "pipe"
            is_recorded = wanted.stdout_mode == "capture", wanted.stderr_mode == "capture"
        record = ProcessRecord(
            next(self._handles),
            wanted.command,
            wanted.args,
            process,
            clock=clock,
            has_stdin=has_stdin,
            is_recorded=is_recorded,
        )
        self._records[record.handle] = record
        self._forget_old()
        spawn(record.follow)
        if not has_stdin:
            await process.send_eof()
        await record.wait_pid()
        return record

    def _forget_old(self) -> None:
        """Keep Invariant T1; called with every process, so that each is seen to after its end."""
        ended = [record for record in self._records.values() if record.is_over]
        size = sum(record.output.size for record in ended)
        excess = len(ended) - _MOST_ENDED
        for place, record in enumerate(ended):
            if place >= excess and size <= _MOST_OUTPUT:
                return
            size -= record.output.size
            del self._records[record.handle]
