"""A client over sandboxes in memory: of its own manager, and of a server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pytest
from anyio.from_thread import start_blocking_portal

from sandpool import SandboxClient
from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend

Run = Callable[[Callable[[], None]], None]
"""Calls a function on the event loop that the sandboxes are on."""

SETTINGS = ServerSettings(port=0)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(modules=["numpy"])


@contextmanager
def served(backend: FakeBackend, settings: ServerSettings = SETTINGS) -> Generator[tuple[str, Run]]:
    """Serve from another thread; gives the URL, and what runs functions there."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            serving(settings, backends={"native": lambda: backend})
        ) as url,
    ):
        yield url, portal.call


@pytest.fixture(params=["embedded", "served"])
def place(request: pytest.FixtureRequest, backend: FakeBackend) -> Iterator[tuple[str, Run] | None]:
    """A server, or None for a client that needs none."""
    if request.param == "embedded":
        yield None
        return
    with served(backend) as place:
        yield place


@pytest.fixture
def client(backend: FakeBackend, place: tuple[str, Run] | None) -> Iterator[SandboxClient]:
    backends = {"native": lambda: backend}
    with (
        SandboxClient(backends=backends) if place is None else SandboxClient(api_url=place[0])
    ) as client:
        yield client


@pytest.fixture
def run_beside(client: SandboxClient, place: tuple[str, Run] | None) -> Run:
    """Call a function on the event loop that the sandboxes are on."""
    if place is not None:
        return place[1]

    def run(function: Callable[[], None]) -> None:
        async def work(_: object) -> None:
            function()

        client._portal.call(work)  # pyright: ignore[reportPrivateUsage]

    return run


@pytest.fixture(autouse=True)
def heeded_interrupts() -> Iterator[None]:
    """Heed SIGINT, which a shell has its background jobs ignore: a test would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
