"""The server as a program: its socket, its signals, and its end."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from sandpool.clock import Clock
from sandpool.errors import BackendUnavailable
from sandpool.server.app import Backends, create_app
from sandpool.server.journal import Journal
from sandpool.server.keys import KeyRing
from sandpool.server.settings import ServerSettings

_GRACE = 20
"""Seconds that requests in progress have when the server is told to stop."""
_KEEP_ALIVE = 75
"""Seconds that an idle connection is kept; longer than what common clients and proxies keep."""
_BACKLOG = 1024
_MOST_CONNECTIONS = 4096
_LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message."""


class _Server(uvicorn.Server):
    """A server that tells when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            raise BackendUnavailable("the server could not start; its log says why")
        self._on_ready()


class _EmbeddedServer(_Server):
    """A server that leaves the program's signal handlers alone."""

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
    with _application(settings, None, None) as app, listen(settings) as listener:
        url = url_of(listener)
        server = _Server(_config(app), lambda: on_ready(url))
        await server.serve([listener])


@asynccontextmanager
async def serving(
    settings: ServerSettings, *, backends: Backends | None = None, clock: Clock | None = None
) -> AsyncGenerator[str]:
    """Serve in this program for the length of an `async with` block, which gets the URL."""
    with _application(settings, backends, clock) as app, listen(settings) as listener:
        ready = anyio.Event()
        server = _EmbeddedServer(_config(app), ready.set)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            try:
                await ready.wait()
                yield url_of(listener)
            finally:
                server.should_exit = True


@contextmanager
def _application(
    settings: ServerSettings, backends: Backends | None, clock: Clock | None
) -> Generator[ASGIApp]:
    """Make the application, with the journal open; `InvalidSpec` if it needs a key and has none."""
    with ExitStack() as stack:
        journal = None
        keys = KeyRing(settings.keys)
        if settings.state_dir is not None:
            journal = Journal(settings.state_dir)
            journal.open()
            stack.callback(journal.close)
            keys = KeyRing(settings.keys, added=journal.changed_keys)
        settings.check_exposure(is_open=keys.is_open)
        yield create_app(settings, keys=keys, journal=journal, backends=backends, clock=clock)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=_LARGEST_MESSAGE,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
