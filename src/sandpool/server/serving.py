"""The server as a program: its socket, its signals, and its end."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from sandpool.clock import Clock
from sandpool.errors import BackendUnavailable
from sandpool.server.app import Backends, create_app
from sandpool.server.connection import WebSocketConnection, bounded
from sandpool.server.journal import Journal
from sandpool.server.keys import KeyRing
from sandpool.server.settings import ServerSettings

_KEEP_ALIVE = 75
"""Seconds that an idle connection is kept; longer than what common clients and proxies keep."""
_BACKLOG = 1024
_TICK = 1.0
"""Seconds between what a server does by the clock."""
_LOOK = 0.002
"""Seconds between two looks at whether all connections have ended."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message."""


class _Server(uvicorn.Server):
    """A server that tells when it answers."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], stopping: anyio.Event
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            raise BackendUnavailable("the server could not start; its log says why")
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Otherwise it would wait for answers that have no end.
        self._stopping.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop by a signal and then go on to the end, where uvicorn would die of the signal."""
        before = {each: signal.signal(each, self.handle_exit) for each in _STOPPING}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class _EmbeddedServer(_Server):
    """A server that leaves the program's signal handlers alone, and is stopped by a call."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], stopping: anyio.Event
    ) -> None:
        super().__init__(config, on_ready, stopping)
        self._is_stopped = anyio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._is_stopped.set()

    async def main_loop(self) -> None:
        # The tick of uvicorn's own loop, 0.1 s, is what a stop would wait for.  A tick of number 0
        # renews the date that answers carry.
        while not await self.on_tick(0):
            with anyio.move_on_after(_TICK):
                await self._is_stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own looks ten times a second whether it may end, and not at once.
        self._stopping.set()
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with anyio.move_on_after(self.config.timeout_graceful_shutdown):
            # uvicorn announces the end of neither.
            while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110
                await anyio.sleep(_LOOK)
            for server in self.servers:
                await server.wait_closed()
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def listen(settings: ServerSettings) -> socket.socket:
    """Return the listening socket; `BackendUnavailable`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host.strip("[]"), settings.port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        raise BackendUnavailable(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "give another --host or --port"
        ) from error
    # Accepted sockets inherit it.  asyncio sets it only where it knows the protocol, which it does
    # not here, and without it an answer of two packets takes 40 ms: the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL that a listening socket is reached under."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, which let requests in progress end; then stop everything.

    `on_ready` is called with the server's URL once it answers.
    """
    stopping = anyio.Event()
    with _application(settings, None, None, stopping) as app, listen(settings) as listener:
        url = url_of(listener)

        def announce() -> None:
            # What there is by now stays to the end, and a collection that looks at all of it, for
            # tens of milliseconds, would find nothing.
            gc.collect()
            gc.freeze()
            on_ready(url)

        server = _Server(_config(app, settings), announce, stopping)
        await server.serve([listener])


@asynccontextmanager
async def serving(
    settings: ServerSettings, *, backends: Backends | None = None, clock: Clock | None = None
) -> AsyncGenerator[str]:
    """Serve in this program for the length of an `async with` block, which gets the URL."""
    stopping = anyio.Event()
    with _application(settings, backends, clock, stopping) as app, listen(settings) as listener:
        ready = anyio.Event()
        server = _EmbeddedServer(_config(app, settings), ready.set, stopping)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            try:
                await ready.wait()
                yield url_of(listener)
            finally:
                server.stop()


@contextmanager
def _application(
    settings: ServerSettings,
    backends: Backends | None,
    clock: Clock | None,
    stopping: anyio.Event,
) -> Generator[ASGIApp]:
    """Make the application, with the journal open; `InvalidSpec` if it needs a key and has none."""
    with ExitStack() as stack:
        journal = None
        keys = KeyRing(settings.keys)
        if settings.state_dir is not None:
            journal = Journal(settings.state_dir)
            journal.open()
            stack.callback(journal.close)
            keys = KeyRing(settings.keys, added=journal.changed_keys, clock=clock)
        settings.check_exposure(is_open=keys.is_open)
        yield create_app(
            settings,
            keys=keys,
            journal=journal,
            backends=backends,
            clock=clock,
            stopping=stopping,
        )


def _config(app: ASGIApp, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        # At `info` it writes down the paths of WebSockets, and so the tokens that open ports.
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        http=bounded(head_timeout=settings.head_timeout, most=settings.max_connections),
        ws=WebSocketConnection,
        ws_max_size=_LARGEST_MESSAGE,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.grace,
    )
