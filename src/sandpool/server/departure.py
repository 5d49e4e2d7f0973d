"""A client that goes away: its work is cancelled, and what it would have held is freed.

A server that works on for somebody who has left wastes its time at best; at worst it hands a
sandbox to nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.server.framing import has_body

_log = logging.getLogger(__name__)

_UNDO = "sandpool.undo"
_UNDO_BOUND = 10.0
"""Seconds that taking back may take."""

Undo = Callable[[], Awaitable[object]]


def undo_if_unheard(connection: HTTPConnection, undo: Undo) -> None:
    """Have `undo` called if the client leaves before it has been sent the whole answer."""
    connection.scope.setdefault(_UNDO, []).append(undo)


class Departure:
    """A layer that cancels a request when its client disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        """Watch the clients of `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request until it is answered, or nobody waits for the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_UNDO] = []
        client = _Client(receive, send, has_body=has_body(scope))
        try:
            with anyio.CancelScope() as work:
                # Most calls end before anything else has its turn, and a task of their own would
                # take longer than they do.
                watching = asyncio.get_running_loop().call_soon(client.be_watched, work)
                try:
                    await self._app(scope, client.receive, client.send)
                finally:
                    watching.cancel()
                    client.end_watch()
        finally:
            if not client.has_heard:
                await _take_back(scope[_UNDO])


class _Client:
    """One request's client: reads from it only what the request asks for, and then watches it."""

    def __init__(self, receive: Receive, send: Send, *, has_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._has_body = has_body
        self._is_body_read = asyncio.Event()
        self._has_left = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self.has_heard = False
        """Whether the whole answer has been sent."""

    async def receive(self) -> Message:
        if self._is_body_read.is_set():
            await self._has_left.wait()
            return {"type": "http.disconnect"}
        if not self._has_body:
            # The server says so too, and the watcher may have heard it already.
            self._is_body_read.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._has_left.set()
        if not message.get("more_body", False):
            self._is_body_read.set()
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.has_heard = True
            # Whether it was or not, nobody is going to.
            self._is_body_read.set()

    def be_watched(self, work: anyio.CancelScope) -> None:
        # Not by anyio: the loop calls this outside of any task, where it may not know the loop.
        self._watcher = asyncio.get_running_loop().create_task(self._watch(work))

    def end_watch(self) -> None:
        if self._watcher is not None:
            # Not waited for: it ends with the next turn of the loop, and does nothing until then.
            self._watcher.cancel()

    async def _watch(self, work: anyio.CancelScope) -> None:
        if self._has_body:
            await self._is_body_read.wait()
        while not self.has_heard and not self._has_left.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._has_left.set()
        if not self.has_heard:
            work.cancel()


async def _take_back(steps: list[Undo]) -> None:
    with anyio.move_on_after(_UNDO_BOUND, shield=True):
        for undo in reversed(steps):
            try:
                await undo()
            except Exception:  # noqa: BLE001 - the client has left, and nobody else would be told
                _log.exception("what a client left behind could not be taken back")
