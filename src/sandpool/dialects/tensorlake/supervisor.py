"""`Supervisor`: looks after a process that is to go on, and starts it again when it has ended.

starting ──► running ⇄ backing_off
    └───────────┴───────────┴──► stopped
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import anyio

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.models import milliseconds
from sandpool.dialects.tensorlake.process_models import (
    HealthCheck,
    HealthStatus,
    LastExit,
    ManagedInfo,
    ManagedStatus,
    ProcessInfo,
    RestartPolicy,
    StartRequest,
)
from sandpool.dialects.tensorlake.process_record import ProcessRecord
from sandpool.errors import SandpoolError
from sandpool.pool.bound import within
from sandpool.service import ByteStream

Launch = Callable[[StartRequest], Awaitable[ProcessRecord]]
Dial = Callable[[int], Awaitable[ByteStream]]

_STATUS_LINE = 64
"""Bytes of an HTTP answer that are looked at."""


class Supervisor:
    """One managed process, through all its runs."""

    def __init__(
        self, number: int, wanted: StartRequest, *, launch: Launch, dial: Dial, clock: Clock
    ) -> None:
        """Describe it; nothing runs before `begin`.

        Args:
            number: Tells it from the sandbox's other managed processes.
            wanted: What to run, and how to look after it.
            launch: Starts a run.
            dial: Connects to a port of the sandbox.
            clock: What time is.
        """
        self.id = wanted.name if wanted.name is not None else f"managed-{number}"
        self.wanted = wanted
        self._policy = wanted.restart or RestartPolicy(policy="never")
        self._launch = launch
        self._dial = dial
        self._clock = clock
        self._runs: list[ProcessRecord] = []
        self._status: ManagedStatus = "starting"
        self._restarts = 0
        self._health: HealthStatus = "disabled" if wanted.health_check is None else "starting"
        self._failures = 0
        self._last_error: str | None = None
        self._next_restart_at: datetime | None = None
        self._is_restart_wanted = False
        self._is_stop_wanted = False
        self._called = anyio.Event()

    @property
    def current(self) -> ProcessRecord:
        """Its last run."""
        return self._runs[-1]

    @property
    def is_stopped(self) -> bool:
        """Whether it will not be started again."""
        return self._status == "stopped"

    async def begin(self) -> None:
        """Start its first run; raises what `launch` does."""
        self._runs.append(await self._launch(self.wanted))
        self._status = "running"

    async def run(self) -> None:
        """Look after it until it is not to be started again."""
        try:
            while await self._outlive():
                self._runs[:] = [self.current, await self._launch(self.wanted)]
                self._status = "running"
        except SandpoolError as error:
            self._last_error = str(error)
        finally:
            self._status = "stopped"
            self._next_restart_at = None

    async def restart(self) -> ProcessRecord:
        """End its run and start another one now."""
        before = self.current
        self._is_restart_wanted = True
        self._call()
        await before.kill()
        while self.current is before and not self.is_stopped:
            await before.ended.wait()
            await self._clock.sleep(_RESTART_POLL)
        return self.current

    async def stop(self) -> None:
        """End its run for good."""
        self._is_stop_wanted = True
        self._call()
        await self.current.kill()

    def info(self) -> ProcessInfo:
        """Describe its last run, and how it fares."""
        return self.current.info(
            ManagedInfo(
                id=self.id,
                name=self.wanted.name,
                status=self._status,
                restart_count=self._restarts,
                restart=self._policy,
                health_check=self.wanted.health_check,
                health_status=self._health,
                consecutive_health_failures=self._failures,
                last_exit=self._last_exit(),
                last_error=self._last_error,
                next_restart_at=(
                    None if self._next_restart_at is None else milliseconds(self._next_restart_at)
                ),
            )
        )

    async def _outlive(self) -> bool:
        """Wait for the end of a run; whether there is to be another one, which is due now."""
        async with anyio.create_task_group() as group:
            if self.wanted.health_check is not None:
                group.start_soon(self._watch_health, self.wanted.health_check)
            await self.current.ended.wait()
            group.cancel_scope.cancel()
        delay = backoff(self._policy, self._restarts, has_failed=self.current.exit_code != 0)
        if self._is_stop_wanted or (delay is None and not self._is_restart_wanted):
            return False
        if delay is not None and not self._is_restart_wanted:
            self._status = "backing_off"
            self._next_restart_at = self._clock.utc() + timedelta(seconds=delay)
            await self._pause(delay)
            self._next_restart_at = None
        if self._is_stop_wanted:
            return False
        self._is_restart_wanted = False
        self._restarts += 1
        self._status = "starting"
        return True

    async def _pause(self, seconds: float) -> None:
        self._called = anyio.Event()
        try:
            await within(self._clock, seconds, self._called.wait)
        except TimeoutError:
            return

    def _call(self) -> None:
        self._called.set()

    def _last_exit(self) -> LastExit | None:
        for run in reversed(self._runs):
            if run.ended_at is not None:
                return LastExit(
                    exit_code=run.exit_code,
                    signal=run.signal,
                    oom_killed=run.status == "oom_killed",
                    ended_at=milliseconds(run.ended_at),
                )
        return None

    # Health.

    async def _watch_health(self, check: HealthCheck) -> None:
        self._health, self._failures = "starting", 0
        await self._clock.sleep(check.initial_delay_ms / 1000)
        while True:
            fault = await self._look(check)
            if fault is None:
                self._health, self._failures = "healthy", 0
            else:
                self._failures += 1
                self._last_error = fault
                if self._failures >= check.failure_threshold:
                    self._health = "unhealthy"
                    await self.current.send_signal(9)
            await self._clock.sleep(check.interval_ms / 1000)

    async def _look(self, check: HealthCheck) -> str | None:
        """Return what is wrong with the process; None: nothing."""
        try:
            await within(self._clock, check.timeout_ms / 1000, lambda: self._probe(check))
        except TimeoutError:
            return f"port {check.port} did not answer in {check.timeout_ms} ms"
        except (SandpoolError, OSError) as error:
            return str(error)
        return None

    async def _probe(self, check: HealthCheck) -> None:
        stream = await self._dial(check.port)
        try:
            if check.type == "http":
                path = check.path or "/"
                await stream.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                answer = b""
                while len(answer) < _STATUS_LINE and (data := await stream.receive()):
                    answer += data
                _check_answer(answer)
        finally:
            with anyio.CancelScope(shield=True):  # closing does not wait for the other side
                await stream.aclose()


_RESTART_POLL = 0.005
"""Seconds."""


def backoff(policy: RestartPolicy, restarts: int, *, has_failed: bool) -> float | None:
    """Return the seconds until a process that has ended is started again; None: it is not."""
    if policy.policy == "never" or (policy.policy == "on_failure" and not has_failed):
        return None
    if policy.max_restarts is not None and restarts >= policy.max_restarts:
        return None
    # Beyond this power the bound holds whatever the factor is, and the numbers stay small.
    grown = policy.initial_backoff_ms << min(restarts, 32)
    return min(grown, policy.max_backoff_ms) / 1000


def _check_answer(answer: bytes) -> None:
    """Raise `ConnectionError` unless an HTTP answer is one of success."""
    words = answer.split(b" ", 2)
    status = words[1] if len(words) > 1 and words[0].startswith(b"HTTP/") else b""
    if not status.isdigit() or not 200 <= int(status) < 400:
        raise ConnectionError(f"the health check was answered with {status.decode('latin-1')!r}")
