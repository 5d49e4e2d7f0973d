"""`SimulatedFactory`: items that are nothing, whose steps take the time that a seed decides."""

from __future__ import annotations

from random import Random

import anyio.lowlevel

from sandpool.clock import Clock
from sandpool.testing.behaviour import Behaviour, Step
from sandpool.testing.fake_factory import FakeFailure


class SimulatedItem:
    """One item."""

    __slots__ = ("is_alive", "number")

    def __init__(self, number: int) -> None:
        """Begin to live."""
        self.number = number
        self.is_alive = True


class SimulatedFactory:
    """Implements `sandpool.pool.Factory`; light enough for a hundred thousand items."""

    def __init__(self, behaviour: Behaviour, *, clock: Clock, seed: int = 0) -> None:
        """Make items that behave so on that clock."""
        self._behaviour = behaviour
        self._clock = clock
        self._random = Random(seed)  # noqa: S311 - a simulation is to be the same each time
        self.created = 0
        """How many items there have ever been."""
        self.destroyed = 0

    @property
    def alive(self) -> int:
        """Return how many items there are."""
        return self.created - self.destroyed

    async def create(self) -> SimulatedItem:
        """Make an item."""
        await self._go(self._behaviour.create, "create")
        self.created += 1
        return SimulatedItem(self.created)

    async def check(self, item: SimulatedItem) -> None:
        """Look at an item."""
        await self._go(self._behaviour.check, "check")

    async def reset(self, item: SimulatedItem) -> None:
        """Clean an item."""
        await self._go(self._behaviour.reset, "reset")

    async def destroy(self, item: SimulatedItem) -> None:
        """End an item; it is gone even where this fails, as a killed process is."""
        if not item.is_alive:
            raise AssertionError(f"item {item.number} is destroyed a second time")
        item.is_alive = False
        self.destroyed += 1
        await self._go(self._behaviour.destroy, "destroy")

    async def _go(self, step: Step, name: str) -> None:
        seconds, fails = step.draw(self._random)
        if seconds:
            await self._clock.sleep(seconds)
        else:
            await anyio.lowlevel.checkpoint()
        if fails:
            raise FakeFailure(f"{name} failed by chance")
