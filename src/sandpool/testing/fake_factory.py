"""`FakeFactory`: items that are nothing, made in ways that a test decides.

A step ("create", "reset", "check", "destroy") goes `ok`, raises (`error`), takes `slow_seconds` of
the clock (`slow`), or does not end before it is cancelled (`never`).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

import anyio
import anyio.lowlevel

from sandpool.clock import Clock

Step = Literal["create", "reset", "check", "destroy"]
Way = Literal["ok", "error", "slow", "never"]


class FakeFailure(Exception):
    """Raised by a step that is to go `error`."""


@dataclass(eq=False)
class FakeItem:
    """One item, and what has happened to it."""

    number: int
    is_alive: bool = True
    resets: int = 0
    checks: int = 0


@dataclass
class FakeFactory:
    """Implements `sandpool.pool.Factory`; `ways` and `script` may be changed at any time."""

    clock: Clock
    ways: dict[Step, Way] = field(default_factory=dict[Step, Way])
    """How a step goes; `ok` if it is not in here."""
    script: dict[Step, deque[Way]] = field(default_factory=dict[Step, deque[Way]])
    """How the next calls of a step go; then `ways` holds."""
    slow_seconds: float = 1.0
    items: list[FakeItem] = field(default_factory=list[FakeItem])
    """Every item that `create` has returned."""
    calls: Counter[str] = field(default_factory=Counter[str])

    @property
    def alive(self) -> list[FakeItem]:
        """Return the items that have not been destroyed."""
        return [item for item in self.items if item.is_alive]

    def plan(self, step: Step, *ways: Way) -> None:
        """Script the next calls of a step."""
        self.script.setdefault(step, deque()).extend(ways)

    async def create(self) -> FakeItem:
        """Make an item."""
        await self._go("create")
        item = FakeItem(len(self.items))
        self.items.append(item)
        return item

    async def check(self, item: FakeItem) -> None:
        """Look at an item."""
        item.checks += 1
        await self._go("check")

    async def reset(self, item: FakeItem) -> None:
        """Clean an item."""
        await self._go("reset")
        item.resets += 1

    async def destroy(self, item: FakeItem) -> None:
        """End an item; it is gone even where this fails, as a killed process is."""
        if not item.is_alive:
            raise AssertionError(f"item {item.number} is destroyed a second time")
        item.is_alive = False
        await self._go("destroy")

    async def _go(self, step: Step) -> None:
        self.calls[step] += 1
        await anyio.lowlevel.checkpoint()
        scripted = self.script.get(step)
        way = scripted.popleft() if scripted else self.ways.get(step, "ok")
        if way == "error":
            raise FakeFailure(f"{step} was to fail")
        if way == "slow":
            await self.clock.sleep(self.slow_seconds)
        elif way == "never":
            await anyio.sleep_forever()
