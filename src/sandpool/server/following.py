"""`Followed`: an answer of server-sent events, sent while the work that they tell of goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandpool.errors import SandpoolError
from sandpool.models import Stream
from sandpool.service import OnOutput
from sandpool.wire import events

ANSWERS_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {events.MEDIA_TYPE: {"schema": {"type": "string"}}}}
}
"""What a route that can be followed says of its answers, beside their model."""

_SILENCE = 15.0
"""Seconds after which a sign of life is sent, so that no proxy on the way takes it for dead."""


class Followed(Response):
    """A run's output as it comes, and then its result.

    The run goes on while the answer is sent, no faster than the client takes it; a client that
    leaves cancels it.  What goes wrong before the first event is answered as by any other call.
    """

    media_type = events.MEDIA_TYPE

    def __init__(self, run: Callable[[OnOutput], Awaitable[bytes]]) -> None:
        """Say what is to be run when the answer is sent; it returns the last events."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # The length of an answer that is not there yet.
        del self.headers["content-length"]
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run it, and send its events."""
        answer = _Answer(self.status_code, self.raw_headers, send)

        async def on_output(stream: Stream, data: bytes) -> None:
            await answer.send(events.write_output(stream, data))

        failure: SandpoolError | None = None
        last = b""
        async with anyio.create_task_group() as group:
            group.start_soon(answer.give_signs)
            try:
                last = await self._run(on_output)
            except SandpoolError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None and not answer.has_begun:
            raise failure
        await answer.end(last if failure is None else events.write_error(failure))


class _Answer:
    """An answer that begins with its first piece."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        self._status = status
        self._headers = headers
        self._send = send
        self._lock = anyio.Lock()
        self.has_begun = False

    async def send(self, piece: bytes) -> None:
        await self._pass_on(piece, more=True)

    async def end(self, piece: bytes) -> None:
        await self._pass_on(piece, more=False)

    async def give_signs(self) -> None:
        while True:
            await anyio.sleep(_SILENCE)
            await self.send(events.PING)

    async def _pass_on(self, piece: bytes, *, more: bool) -> None:
        async with self._lock:
            if not self.has_begun:
                self.has_begun = True
                await self._send(
                    {
                        "type": "http.response.start",
                        "status": self._status,
                        "headers": self._headers,
                    }
                )
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})
