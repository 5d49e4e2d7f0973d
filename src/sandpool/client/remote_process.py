"""`RemoteProcess` and `RemoteStream`: what a WebSocket to a server is attached to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from sandpool.client import answers
from sandpool.client.transport import Transport
from sandpool.errors import RemoteError, SandpoolError, ServerUnreachable, Unsupported
from sandpool.models import ExecResult, Stream
from sandpool.wire import problems
from sandpool.wire.runs import (
    END_OF_STREAM,
    LARGEST_PIECE,
    REPORT,
    STDIN,
    STREAMS,
    Attachment,
    Control,
    Ended,
    Started,
)

_STDIN = bytes([STDIN])


class RemoteProcess:
    """One process in a server's sandbox; implements `service.Process`.

    It is killed when its WebSocket is closed, so also when this program ends.
    """

    def __init__(
        self, connection: ClientConnection, stack: AsyncExitStack, *, is_terminal: bool
    ) -> None:
        """Take over an open WebSocket; only `start` does."""
        self._connection = connection
        self._stack = stack
        self._is_terminal = is_terminal
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._ended: ExecResult | SandpoolError | None = None
        self.pid: int | None = None

    @classmethod
    async def start(
        cls, transport: Transport, path: str, wanted: Attachment, lease_id: str | None
    ) -> RemoteProcess:
        """Start a process; raises what the server does."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                transport.websocket(path, lease_id=lease_id)
            )
            process = cls(connection, stack, is_terminal=wanted.pty is not None)
            await process._begin(wanted)
            process._stack = stack.pop_all()
            return process

    async def __aenter__(self) -> RemoteProcess:
        """Return itself."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Kill it if it has not ended."""
        await self._stack.aclose()

    def __aiter__(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Iterate over the output as it comes."""
        return self._output()

    async def send(self, data: bytes) -> None:
        """Write to standard input; waits while the program does not read."""
        for start in range(0, len(data), LARGEST_PIECE):
            await self._tell(_STDIN + data[start : start + LARGEST_PIECE])

    async def send_eof(self) -> None:
        """Close standard input."""
        await self._control(eof=True)

    async def signal(self, number: int) -> None:
        """Send a signal to the run's process group."""
        await self._control(signal=number)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its size."""
        if not self._is_terminal:
            raise Unsupported("only a terminal has a size; start the program with open_pty")
        await self._control(resize={"rows": rows, "cols": cols})

    async def wait(self) -> ExecResult:
        """Return the result; stdout and stderr hold what was not iterated over."""
        async for stream, data in self._output():
            self._kept[stream] += data
        if isinstance(self._ended, ExecResult):
            return self._ended.model_copy(
                update={
                    "stdout": self._kept["stdout"].decode("utf-8", "replace"),
                    "stderr": self._kept["stderr"].decode("utf-8", "replace"),
                }
            )
        assert self._ended is not None
        raise self._ended

    async def _begin(self, wanted: Attachment) -> None:
        await self._tell(_text(wanted))
        message = await self._receive()
        if not isinstance(message, str):
            raise _not_understood()
        self._hear(message)
        if isinstance(self._ended, SandpoolError):
            raise self._ended

    async def _output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while self._ended is None:
            message = await self._receive()
            if isinstance(message, str):
                self._hear(message)
                if self._ended is not None:
                    await self._stack.aclose()
            elif (stream := STREAMS.get(message[0] if message else -1)) is not None:
                yield stream, message[1:]
        if isinstance(self._ended, SandpoolError):
            raise self._ended.with_traceback(None)

    def _hear(self, message: str) -> None:
        try:
            report: Started | Ended = REPORT.validate_json(message)
        except ValidationError:
            raise _not_understood() from None
        if isinstance(report, Started):
            self.pid = report.pid
        elif report.error is not None:
            self._ended = problems.decode(0, report.error)
        elif report.result is not None:
            self._ended = report.result
        else:
            raise _not_understood()

    async def _control(self, **fields: object) -> None:
        await self._tell(_text(Control.model_validate(answers.body(Control, **fields))))

    async def _tell(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            # What has ended cannot be told anything, and that is no fault.
            if self._ended is None and not _is_orderly(closed):
                raise _lost(closed) from None

    async def _receive(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise _lost(closed) from None


class RemoteStream:
    """A connection to a port in a server's sandbox; implements `service.ByteStream`."""

    def __init__(self, connection: ClientConnection, stack: AsyncExitStack) -> None:
        """Take over an open WebSocket; only `dial` does."""
        self._connection = connection
        self._stack = stack
        self._has_ended = False

    @classmethod
    async def dial(cls, transport: Transport, path: str, lease_id: str | None) -> RemoteStream:
        """Connect; raises what the server does."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                transport.websocket(path, lease_id=lease_id)
            )
            return cls(connection, stack.pop_all())

    async def receive(self) -> bytes:
        """Return the next bytes; `b""` when the other side has ended."""
        if self._has_ended:
            return b""
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise _lost(closed) from None
        if isinstance(message, bytes):
            return message
        self._has_ended = True
        return b""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        for start in range(0, len(data), LARGEST_PIECE):
            await self._send(data[start : start + LARGEST_PIECE])

    async def send_eof(self) -> None:
        """End our side; the other may go on."""
        await self._send(END_OF_STREAM)

    async def aclose(self) -> None:
        """Close both sides."""
        await self._stack.aclose()

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise _lost(closed) from None


def _text(message: BaseModel) -> str:
    return message.model_dump_json(exclude_defaults=True)


def _is_orderly(closed: ConnectionClosed) -> bool:
    return closed.rcvd is not None and closed.rcvd.code == 1000


def _lost(closed: ConnectionClosed) -> SandpoolError:
    """Return what the end of a WebSocket stands for: a problem's code, or a server that is gone."""
    if closed.rcvd is not None and closed.rcvd.reason:
        reason = closed.rcvd.reason
        found = problems.decode(0, {"code": reason, "detail": f"the connection ended: {reason}"})
        if not isinstance(found, RemoteError):
            return found
    return ServerUnreachable(f"the connection to the server ended: {closed}")


def _not_understood() -> RemoteError:
    return RemoteError("the server answered what no attached process does; is it as old as this?")
