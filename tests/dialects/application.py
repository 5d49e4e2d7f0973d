"""The whole server as an application in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx
from starlette.types import ASGIApp, Message

from sandpool.clock import Clock
from sandpool.server import ServerSettings, create_app
from sandpool.testing import FakeBackend


@asynccontextmanager
async def in_memory(
    settings: ServerSettings, backend: FakeBackend, path: str = "", clock: Clock | None = None
) -> AsyncGenerator[httpx.AsyncClient]:
    """Run the server for the length of a block, without a socket, which would take much longer.

    Yields a client whose requests begin with `path`.  The server's time is real without a `clock`.
    """
    app = create_app(settings, backends={"native": lambda: backend}, clock=clock)
    async with (
        running(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost" + path, timeout=5
        ) as client,
    ):
        yield client


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncGenerator[None]:
    """Start an application, and stop it after the block."""
    has_started, is_over = anyio.Event(), anyio.Event()

    async def receive() -> Message:
        if not has_started.is_set():
            return {"type": "lifespan.startup"}
        await is_over.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            has_started.set()

    async def run() -> None:
        await app({"type": "lifespan"}, receive, send)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await has_started.wait()
        try:
            yield
        finally:
            is_over.set()
