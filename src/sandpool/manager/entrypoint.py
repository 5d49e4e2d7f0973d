"""`Entrypoint`: the command that serves in one sandbox, and the last of what it said."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import SandpoolError

_KEPT = 16_384
"""Bytes of output that are kept: the last ones."""

_LAST_WORDS = 500
"""Characters of output that belong into the message about a server's end."""


class Entrypoint:
    """A command that is to run for as long as its sandbox."""

    def __init__(self, options: RunOptions, on_end: Callable[[Entrypoint], None]) -> None:
        """Describe it; `run` starts it.  `on_end` is called if it ends before its sandbox does."""
        self._options = options
        self._on_end = on_end
        self._tail: deque[bytes] = deque()
        self._size = 0
        self.ended = anyio.Event()
        """Set once it does not run any more, or could not be started."""
        self.epitaph: str | None = None
        """How it ended, in words; None while it has not, or went with its sandbox."""

    async def run(self, box: Box, *, task_status: TaskStatus[None]) -> None:
        """Start it, read what it says for as long as it runs, and note how it ended."""
        try:
            async with await box.start(self._options) as process:
                task_status.started()
                async for _, data in process:
                    self._note(data)
                result = await process.wait()
        except SandpoolError as error:
            if box.died is None:
                self._note_end(f"could not be run: {error}")
        else:
            how = f"signal {result.signal}" if result.signal else f"exit code {result.exit_code}"
            self._note_end(f"ended with {how}")
        finally:
            self.ended.set()

    def output(self) -> str:
        """Return the last of what it said, stdout and stderr as they came."""
        return b"".join(self._tail).decode("utf-8", "replace")

    def _note(self, data: bytes) -> None:
        self._tail.append(data[-_KEPT:])
        self._size += len(self._tail[-1])
        while self._size - len(self._tail[0]) >= _KEPT:
            self._size -= len(self._tail.popleft())

    def _note_end(self, how: str) -> None:
        said = self.output().strip()[-_LAST_WORDS:]
        self.epitaph = f"{self._options.argv[0]!r} {how}" + (f": {said}" if said else "")
        self.ended.set()
        self._on_end(self)
