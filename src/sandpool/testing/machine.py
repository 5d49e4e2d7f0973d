"""What a program inside a `FakeBox` sees: files, variables, input, output and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from sandpool.clock import Clock
from sandpool.models import Stream
from sandpool.testing.filesystem import MemoryFiles
from sandpool.testing.ports import FakePorts

_TURNS_PER_TICK = 1_000
_TICK = 0.001


class Exit(BaseException):
    """The program ends at once with `code`, or by a signal."""

    def __init__(self, code: int, signal: int | None = None) -> None:
        """Carry what the parent of a process would see."""
        super().__init__(code)
        self.code = code
        self.signal = signal


class Pipe:
    """Standard input: bytes that may still be coming."""

    def __init__(self, data: bytes | None) -> None:
        """Hold all of it, or with None stay open for `feed`."""
        self._data = bytearray(data or b"")
        self._ended = data is not None
        self._changed = anyio.Event()

    def feed(self, data: bytes) -> None:
        """Add bytes; ignored after `end`, as a write to a closed pipe is lost."""
        if not self._ended:
            self._data += data
            self._wake()

    def end(self) -> None:
        """No more bytes."""
        self._ended = True
        self._wake()

    async def chunk(self) -> bytes:
        """Wait for bytes and return them; `b""` at the end."""
        while not self._data and not self._ended:
            await self._changed.wait()
        return self.take()

    async def rest(self) -> bytes:
        """Wait for the end and return everything."""
        while not self._ended:
            await self._changed.wait()
        return self.take()

    def take(self) -> bytes:
        """Return what is there now."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@dataclass(slots=True)
class Machine:
    """The surroundings of one program."""

    files: MemoryFiles
    clock: Clock
    env: dict[str, str]
    cwd: str
    stdin: Pipe
    emit: Callable[[Stream, bytes], None]
    pid: int
    argv: tuple[str, ...] = ()
    ports: FakePorts = field(default_factory=FakePorts)
    _turns: int = 0
    _debt: float = field(default=0.0)
    """Seconds that synchronous code has slept, still to be waited for."""

    def owe(self, seconds: float) -> None:
        """Sleep, from synchronous code: waited for at the next `settle`."""
        if seconds < 0 or math.isnan(seconds):
            raise ValueError("sleep length must be non-negative")
        self._debt += seconds

    async def settle(self) -> None:
        """Let time pass: what is owed, and a tick for every thousand turns of a loop."""
        self._turns += 1
        if self._turns % _TURNS_PER_TICK == 0:
            # A busy loop takes time too; without this it would never reach its timeout.
            self._debt += _TICK
        if self._debt:
            owed, self._debt = self._debt, 0.0
            await self.clock.sleep(owed)

    def child(self, **changes: Any) -> Machine:
        """Return the surroundings of a program that this one starts."""
        return replace(self, env=dict(self.env), **changes)
