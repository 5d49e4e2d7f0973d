"""`Launcher`: what is done in a new sandbox of a pool before it is ready, and whether it still is.

    files ──► setup commands, one after the other ──► entrypoint ──► healthy

A sandbox of a pool whose definition has none of these is ready as soon as its guest has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from anyio.abc import TaskStatus

from sandpool.backends.base import Box, RunOptions
from sandpool.clock import Clock
from sandpool.errors import CreateFailed, SandpoolError, Unhealthy
from sandpool.manager.entrypoint import Entrypoint
from sandpool.manager.health import look
from sandpool.manager.launch import Launch
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.runtime import Runtime
from sandpool.models import HealthCheck
from sandpool.pool.bound import within

_LAST_WORDS = 2_000
"""Characters of a failed setup command's output that its error tells."""

_MOST_OUTPUT = 65_536
"""Bytes of a setup command's output that are kept at all."""

_FIRST_DELAY = 1 / 16
"""The share of the interval after which a server is looked at for the second time; it doubles."""


class Launcher:
    """Makes sandboxes ready, and looks whether they are."""

    def __init__(
        self,
        launch: Launch,
        health: HealthCheck,
        *,
        runtime: Runtime,
        clock: Clock,
    ) -> None:
        """Launch as `launch` says; the servers run as bodies of `runtime`."""
        self._launch = launch
        self.health = health
        """What a healthy sandbox answers to, besides its guest's ping."""
        self._runtime = runtime
        self._clock = clock

    @property
    def looks_inside(self) -> bool:
        """Whether `check` looks at more than whether an entrypoint has ended."""
        return self.health.kind != "guest"

    async def launch(self, sandbox: LocalSandbox, on_end: Callable[[], None]) -> None:
        """Return once the sandbox is healthy; `CreateFailed` says what went wrong, and its output.

        `on_end` is called if its server ends after that, though the sandbox lives.
        """
        box, launch = sandbox.need_box(), self._launch
        for path, data in launch.files.items():
            await box.write_file(path, data)
        for number, argv in enumerate(launch.setup, 1):
            await self._set_up(box, number, argv)
        if not launch.entrypoint:
            await self.check(sandbox)
            return
        entrypoint = sandbox.entrypoint = Entrypoint(
            RunOptions(argv=launch.entrypoint, env=launch.env, max_output=None),
            lambda _: on_end(),
        )
        await self._run(sandbox.id, entrypoint, box)
        await self._wait_healthy(entrypoint, box)

    async def check(self, sandbox: LocalSandbox) -> None:
        """Return if the sandbox is healthy; `Unhealthy`.  The caller bounds the time."""
        entrypoint = sandbox.entrypoint
        if entrypoint is not None and entrypoint.epitaph is not None:
            raise Unhealthy(entrypoint.epitaph)
        await look(sandbox.need_box(), self.health)

    async def _set_up(self, box: Box, number: int, argv: tuple[str, ...]) -> None:
        launch = self._launch
        result = await box.exec(
            RunOptions(
                argv=argv, env=launch.env, timeout=launch.setup_timeout, max_output=_MOST_OUTPUT
            )
        )
        if result.ok:
            return
        how = f"ended with {result.exit_code}"
        if result.oom_killed:
            how = "needed more memory than the sandbox has"
        elif result.timed_out:
            how = f"did not end within {launch.setup_timeout:g}s"
        said = f"{result.stdout}\n{result.stderr}".strip()[-_LAST_WORDS:]
        raise CreateFailed(f"setup command {number} ({_shown(argv)}) {how}: {said}")

    async def _run(self, sandbox_id: str, entrypoint: Entrypoint, box: Box) -> None:
        name = f"entrypoint of {sandbox_id}"

        async def body(*, task_status: TaskStatus[None]) -> None:
            try:
                await entrypoint.run(box, task_status=task_status)
            finally:
                self._runtime.remove(name)

        await self._runtime.add(name, body)

    async def _wait_healthy(self, entrypoint: Entrypoint, box: Box) -> None:
        health = self.health
        end = self._clock.now() + health.start_timeout
        delay = health.interval * _FIRST_DELAY
        while True:
            left = end - self._clock.now()
            try:
                await within(self._clock, min(health.timeout, left), lambda: look(box, health))
            except (SandpoolError, TimeoutError) as error:
                if box.died is not None:
                    raise
                failure = error
            else:
                return
            if entrypoint.epitaph is not None:
                raise CreateFailed(f"the entrypoint {entrypoint.epitaph}")
            if self._clock.now() + delay >= end:
                said = entrypoint.output().strip()[-_LAST_WORDS:]
                raise CreateFailed(
                    f"the entrypoint was not healthy within {health.start_timeout:g}s: {failure}"
                    + (f"; it said: {said}" if said else "")
                )
            with suppress(TimeoutError):
                await within(self._clock, delay, entrypoint.ended.wait)
            delay = min(health.interval, delay * 2)


def _shown(argv: tuple[str, ...]) -> str:
    line = argv[2] if argv[:2] == ("/bin/sh", "-c") else " ".join(argv)
    return line if len(line) <= 80 else line[:77] + "..."
