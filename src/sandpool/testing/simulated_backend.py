"""`SimulatedBackend`: the sandboxes of `FakeBackend`, as slow and as fallible as a seed decides.

For what takes too long or too many machines to be tried: give it, and the manager above it, a
`VirtualClock`, and days of a busy service pass in seconds.

    clock = VirtualClock()
    behaviour = Behaviour(create=Step(lognormal(0.4, 1.5), failures=0.01), run=Step(exponential(2)))
    backend = SimulatedBackend(behaviour, clock=clock, seed=7)

All that it says of time is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

import anyio
import anyio.lowlevel

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.clock import Clock
from sandpool.errors import CreateFailed, DestroyFailed
from sandpool.testing.backend import FakeBackend
from sandpool.testing.behaviour import Behaviour, Step
from sandpool.testing.box import FakeBox
from sandpool.testing.process import Program, Run


class SimulatedBackend(FakeBackend):
    """Makes `SimulatedBox`es."""

    name = "simulated"

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        clock: Clock,
        seed: int = 0,
        images: Iterable[str] = ("host",),
        modules: Iterable[str] | None = None,
    ) -> None:
        """Make it.

        Args:
            behaviour: How long each step takes, and how often it fails; by default none does.
            clock: What time is.
            seed: What decides the times and the failures.
            images: The images that exist.
            modules: What `preload` may name; by default anything.
        """
        super().__init__(clock=clock, images=images, modules=modules)
        self._behaviour = behaviour if behaviour is not None else Behaviour()
        self._random = Random(seed)  # noqa: S311 - a simulation is to be the same each time

    async def _take_time(self) -> None:
        seconds, fails = self._behaviour.create.draw(self._random)
        await _pass(self._clock, seconds)
        if fails:
            raise CreateFailed("a creation failed by chance")

    def _new_box(self, box_id: str, spec: BoxSpec) -> SimulatedBox:
        return SimulatedBox(box_id, spec, self._clock, self._forget, self._behaviour, self._random)


class SimulatedBox(FakeBox):
    """One sandbox in memory that takes its time."""

    def __init__(
        self,
        box_id: str,
        spec: BoxSpec,
        clock: Clock,
        forget: Callable[[FakeBox], None],
        behaviour: Behaviour,
        random: Random,
    ) -> None:
        """Make it; only `SimulatedBackend.create` does."""
        super().__init__(box_id, spec, clock, forget)
        self._behaviour = behaviour
        self._random = random

    @property
    def info(self) -> Mapping[str, Any]:
        """Say that nothing is isolated."""
        return {"backend": "simulated", "isolation": "none"}

    async def ping(self) -> None:
        """Answer after the time of a check; by chance it is found dead instead."""
        await super().ping()
        if await self._fails(self._behaviour.check):
            self.die("backend")
        await self._step()

    async def destroy(self) -> None:
        """End it, after the time that this takes."""
        if self.died is None and await self._fails(self._behaviour.destroy):
            raise DestroyFailed(f"sandbox {self.id} did not end, by chance")
        await super().destroy()

    def _new_run(self, program: Program, options: RunOptions) -> Run:
        async def simulated(run: Run) -> int:
            fails = await self._fails(self._behaviour.run)
            if fails:
                self.die("oom")
                # The run is killed with its sandbox; it must not come to its program.
                await anyio.sleep_forever()
            return await program(run)

        return super()._new_run(simulated, options)

    async def _fails(self, step: Step) -> bool:
        seconds, fails = step.draw(self._random)
        await _pass(self._clock, seconds)
        return fails


async def _pass(clock: Clock, seconds: float) -> None:
    if seconds:
        await clock.sleep(seconds)
    else:
        await anyio.lowlevel.checkpoint()
