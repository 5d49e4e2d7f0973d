"""A run that is followed: the events of a server's answer, handed on as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from inspect import isawaitable

from sandpool.errors import RemoteError, SandpoolError
from sandpool.service import OnOutput
from sandpool.wire import events


def leave_out(event: events.Event) -> None:
    """Do nothing about an event of a name that this client does not know."""


async def read_result(
    answer: AsyncIterator[bytes],
    on_output: OnOutput,
    on_other: Callable[[events.Event], None] = leave_out,
) -> str:
    """Hand on the output as it comes, and return the result as JSON.

    Raises what the server says went wrong, and `RemoteError` for an answer that ends without a
    result or cannot be read.
    """
    reader = events.Reader()
    async for line in _lines(answer):
        event = reader.feed(line)
        if event is None:
            continue
        read = _read(event)
        if isinstance(read, SandpoolError):
            raise read
        if isinstance(read, events.Output):
            given = on_output(read.stream, read.data)
            if isawaitable(given):
                await given
        elif event.name == "result":
            return event.data
        else:
            on_other(event)
    raise RemoteError("the server's answer ended before its result")


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    begun: list[bytes] = []
    async for piece in pieces:
        begun.append(piece)
        if b"\n" in piece:
            *lines, rest = b"".join(begun).split(b"\n")
            begun = [rest]
            for line in lines:
                yield line.removesuffix(b"\r").decode()


def _read(event: events.Event) -> events.Output | SandpoolError | None:
    try:
        return events.read_error(event) if event.name == "error" else events.read_output(event)
    except ValueError as error:
        raise RemoteError(f"this client cannot read an event of the server's: {error}") from None
