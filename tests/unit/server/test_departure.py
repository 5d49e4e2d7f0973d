"""A client that leaves: its call ends, and what it would have been given is taken back."""

from __future__ import annotations

import anyio
import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from sandpool.server.departure import Departure, undo_if_unheard

pytestmark = [pytest.mark.anyio, pytest.mark.uvloop]


class Caller:
    """One client, who leaves when told to."""

    def __init__(self, *, body: bytes) -> None:
        self.scope: Scope = {"type": "http", "headers": []}
        if body:
            self.scope["headers"].append((b"content-length", str(len(body)).encode()))
        self._messages: list[Message] = [{"type": "http.request", "body": body}]
        self.leaves = anyio.Event()
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.heard.append(message)


@pytest.mark.parametrize("body", [b"", b"all of it"])
async def test_a_call_ends_when_its_client_leaves_and_is_undone(body: bytes) -> None:
    undone: list[str] = []
    caller = Caller(body=body)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def undo() -> None:
            undone.append("sandbox")

        if body:
            assert (await receive())["body"] == body
        undo_if_unheard(HTTPConnection(scope), undo)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(Departure(serve), caller.scope, caller.receive, caller.send)
        await anyio.wait_all_tasks_blocked()
        assert undone == []
        caller.leaves.set()
    assert (undone, caller.heard) == (["sandbox"], [])


@pytest.mark.parametrize("body", [b"", b"that nobody reads"])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_call_that_is_answered_is_not_undone(body: bytes, waits: bool) -> None:
    undone: list[str] = []
    caller = Caller(body=body)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def undo() -> None:
            undone.append("sandbox")

        undo_if_unheard(HTTPConnection(scope), undo)
        if waits:
            await anyio.wait_all_tasks_blocked()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yours"})

    await Departure(serve)(caller.scope, caller.receive, caller.send)
    assert undone == []
    assert len(caller.heard) == 2
