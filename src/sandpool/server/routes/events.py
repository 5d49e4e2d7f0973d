"""What happens in a namespace, as server-sent events."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandpool.server.context import CurrentTenant
from sandpool.server.events import Feed
from sandpool.server.following import ANSWERS_EVENTS
from sandpool.wire import events, problems

router = APIRouter(prefix="/v1", tags=["server"], responses=problems.RESPONSES)


@router.get("/events", response_class=Response, responses=ANSWERS_EVENTS)
async def follow_events(
    request: Request,
    tenant: CurrentTenant,
    last_event_id: Annotated[
        str | None, Header(description="The last event that has been read.", max_length=64)
    ] = None,
) -> Response:
    """Tell what happens to the namespace's pools and their sandboxes, for as long as it is read.

    With `Last-Event-ID` it goes on after that event.  An event `gap` stands for those that are no
    longer remembered.
    """
    state = request.app.state
    return Following(
        tenant.feed,
        last_event_id,
        stopping=state.stopping,
        silence=state.settings.event_silence,
        patience=state.settings.event_patience,
    )


class Following(Response):
    """An answer that goes on until its reader leaves or stops reading, or the server stops."""

    media_type = events.MEDIA_TYPE

    def __init__(
        self,
        feed: Feed,
        last_event_id: str | None,
        *,
        stopping: anyio.Event,
        silence: float,
        patience: float,
    ) -> None:
        """Join the readers; `NoCapacity`.

        Args:
            feed: What is read.
            last_event_id: The last event that the reader knows.
            stopping: Set when the server is to stop.
            silence: Seconds after which a sign of life is sent.
            patience: Seconds that a reader may leave what it was sent unread.
        """
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # The length of an answer that is not there yet.
        del self.headers["content-length"]
        self._feed = feed
        self._place = feed.place_of(last_event_id)
        self._stopping = stopping
        self._silence = silence
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is and what comes."""
        self._feed.join()
        try:
            headers = self.raw_headers
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": headers}
            )
            is_read = True
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, group.cancel_scope)
                is_read = await self._send_all(send)
                group.cancel_scope.cancel()
            if is_read:
                await self._pass_on(send, b"", more=False)
            # Else there is nobody to end it for, and the connection is closed without an end.
        finally:
            self._feed.leave()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()

    async def _send_all(self, send: Send) -> bool:
        """Send until somebody cancels, or the reader stops reading; then return False."""
        # The sign of life makes the client see at once that it is connected.
        piece = events.PING
        while True:
            if piece and not await self._pass_on(send, piece, more=True):
                return False
            batch = self._feed.read(self._place)
            self._place = batch.place
            piece = self._feed.write(batch)
            if not piece:
                with anyio.move_on_after(self._silence) as quiet:
                    await self._feed.wait(batch.place)
                piece = events.PING if quiet.cancelled_caught else b""

    async def _pass_on(self, send: Send, piece: bytes, *, more: bool) -> bool:
        """Send a piece; return whether the reader has taken what was before it in time."""
        with anyio.move_on_after(self._patience) as scope:
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        return not scope.cancelled_caught
