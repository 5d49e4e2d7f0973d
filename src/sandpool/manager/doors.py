"""`Doors`: the loopback ports of this machine that lead into one sandbox."""

from __future__ import annotations

from sandpool.backends.inheritance import keep_from_forks
from sandpool.errors import BackendUnavailable
from sandpool.manager.runtime import Runtime
from sandpool.proxy.door import Door
from sandpool.proxy.gate import Gate

_Key = tuple[int, bool]
"""The port, and whether the door is private."""


class Doors:
    """The doors of one sandbox, each opened when its URL is first asked for.

    A door closes with the gate that it leads through, which is its lease's.
    """

    def __init__(self, runtime: Runtime | None) -> None:
        """Have `runtime` keep them open; without one, they get one of their own."""
        self._runtime = runtime
        self._own_runtime: Runtime | None = None
        self._open: dict[Gate, dict[_Key, Door]] = {}

    async def open(self, gate: Gate, port: int, *, is_private: bool) -> str:
        """Return the URL of the door that leads to `port`; `BackendUnavailable` if none is free."""
        runtime = self._runtime or self._own_runtime
        if runtime is None:
            runtime = self._own_runtime = Runtime()
        doors = self._open.setdefault(gate, {})
        door = doors.get((port, is_private))
        if door is not None:
            # On another event loop than before, doors open again there.
            await runtime.ensure()
            return door.url
        door = Door(gate, port, is_private=is_private)
        try:
            keep_from_forks(door.listen())
        except OSError as error:
            raise BackendUnavailable(f"no loopback port can be had: {error}") from error
        doors[port, is_private] = door
        name = f"door {id(door)} of sandbox {gate.sandbox_id}"

        def close() -> None:
            self._open.pop(gate, None)
            runtime.remove(name)
            door.close()

        gate.on_end(close)
        # Cancel: the door stays, and goes with its gate.
        await runtime.add(name, door.run)
        return door.url

    async def aclose(self) -> None:
        """End what keeps them open, if it is our own."""
        runtime, self._own_runtime = self._own_runtime, None
        if runtime is not None:
            await runtime.aclose()
