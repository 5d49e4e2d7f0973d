"""`Terminal`: a command on a terminal of its own, which clients attach to and leave again.

Its output waits for whoever attaches; while nobody does, the command stops when so much is waiting.
"""

from __future__ import annotations

import hmac
import logging
from collections import deque

import anyio

from sandpool.errors import InvalidSpec, NoCapacity, ProcessNotFound, SandpoolError
from sandpool.ids import new_sandbox_id, new_token
from sandpool.models import ExecResult
from sandpool.service import Process

_log = logging.getLogger(__name__)

_MOST_PIECES = 64
"""Pieces of output that wait for a client."""
_MOST_TERMINALS = 64
"""Terminals of one sandbox, those included whose end nobody has asked for."""
_KILLED = 9


class Terminal:
    """One terminal; `follow` must be going for it to be more than a start.

    V1  One client at a time is attached, so that output comes to it in its order.
    """

    def __init__(self, process: Process) -> None:
        """Describe a command that has just been started."""
        self.id = f"pty-{new_sandbox_id()}"
        self.token = new_token()
        self.exit_code: int | None = None
        """What its command ended with; None: it has not, or ended with its sandbox."""
        self.is_over = False
        self._is_killed = False
        self._process = process
        self._pieces: deque[bytes] = deque()
        self._changed = anyio.Event()
        self._is_attached = False  # Invariant V1

    async def follow(self) -> None:
        """Take its output until it has ended; cancelled, it is killed."""
        try:
            async with self._process as process:
                async for _, data in process:
                    await self._keep(data)
                self.exit_code = _exit_code(await process.wait())
        except SandpoolError as error:
            _log.info("terminal %s ended with its sandbox: %s", self.id, error)
        finally:
            self.is_over = True
            self._wake()

    async def _keep(self, data: bytes) -> None:
        """Wait until there is room for a piece of output; of a killed terminal none is kept."""
        while len(self._pieces) >= _MOST_PIECES and not self._is_killed:
            await self._changed.wait()
        if not self._is_killed:
            self._pieces.append(data)
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def attach(self, token: str) -> None:
        """Let a client take the output; `InvalidSpec` while another one does.

        Raises `ProcessNotFound` for a wrong token: who has none is told nothing.
        """
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise ProcessNotFound("there is no terminal of this id and this token")
        if self._is_attached:
            raise InvalidSpec(f"a client is attached to terminal {self.id} already")
        self._is_attached = True

    def detach(self) -> None:
        """Let the next client take the output."""
        self._is_attached = False

    async def receive(self) -> bytes:
        """Return the next piece of output; `b""` when it has ended."""
        while not self._pieces and not self.is_over:
            await self._changed.wait()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._wake()
        return piece

    async def send(self, data: bytes) -> None:
        """Type on it."""
        await self._process.send(data)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell it its size."""
        await self._process.resize(rows, cols)

    async def send_signal(self, number: int) -> None:
        """Send a signal to its command's process group; nothing happens if that has ended."""
        if not self.is_over:
            await self._process.signal(number)

    async def kill(self) -> None:
        """End it; what it still writes is dropped."""
        self._is_killed = True
        self._wake()
        await self.send_signal(_KILLED)


class Terminals:
    """The terminals of one sandbox, by their ids."""

    def __init__(self) -> None:
        """Begin without any."""
        self._terminals: dict[str, Terminal] = {}

    def check_room(self) -> None:
        """Forget the oldest that has ended if there are very many; `NoCapacity` if none has."""
        if len(self._terminals) < _MOST_TERMINALS:
            return
        ended = next((each for each in self._terminals.values() if each.is_over), None)
        if ended is None:
            raise NoCapacity(f"{_MOST_TERMINALS} terminals of this sandbox are open")
        self.forget(ended)

    def add(self, process: Process) -> Terminal:
        """Return a terminal for a command that has just been started."""
        terminal = Terminal(process)
        self._terminals[terminal.id] = terminal
        return terminal

    def find(self, terminal_id: str) -> Terminal:
        """Return one by its id; `ProcessNotFound`."""
        try:
            return self._terminals[terminal_id]
        except KeyError:
            raise ProcessNotFound(f"there is no terminal {terminal_id}") from None

    def forget(self, terminal: Terminal) -> None:
        """Forget one."""
        self._terminals.pop(terminal.id, None)

    def running(self) -> list[Terminal]:
        """Return those that have not ended."""
        return [each for each in self._terminals.values() if not each.is_over]


def _exit_code(result: ExecResult) -> int:
    return result.exit_code if result.signal is None else -result.signal
