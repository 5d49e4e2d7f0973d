"""The application: its layers, its routes, and how errors become answers."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from sandpool.backends.base import Backend
from sandpool.clock import Clock, MonotonicClock
from sandpool.dialects import tensorlake
from sandpool.errors import InvalidSpec, SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import SandboxManagerConfig
from sandpool.server import dialects
from sandpool.server.access import Access
from sandpool.server.addresses import AddressBook
from sandpool.server.answers import problem_headers, send_problem
from sandpool.server.bodies import Bodies
from sandpool.server.departure import Departure
from sandpool.server.durable import DurableManager
from sandpool.server.events import Feed
from sandpool.server.examples import add_examples
from sandpool.server.framing import Framing
from sandpool.server.idempotency import Idempotency
from sandpool.server.index import Index
from sandpool.server.journal import Journal
from sandpool.server.keys import KeyRing
from sandpool.server.metrics import Measure, Metrics
from sandpool.server.ports import Ports
from sandpool.server.routes import (
    claims,
    contexts,
    events,
    files,
    health,
    images,
    leases,
    metrics,
    pools,
    ports,
    runs,
    sandboxes,
)
from sandpool.server.settings import NamespaceLimits, ServerSettings
from sandpool.server.tenants import ManagerFactory, Tenants
from sandpool.server.tensorlake import Dispatch, create_dialect
from sandpool.wire import problems

_log = logging.getLogger(__name__)

_UPLOADS = re.compile(r"/(files|archive)(/|$)")
"""Paths whose bodies are contents, and may be as long as an upload."""

Backends = Mapping[str, Callable[[], Backend]]


class _Application(FastAPI):
    """The routes, and their description."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with examples."""
        return add_examples(super().openapi())


def create_app(
    settings: ServerSettings,
    *,
    keys: KeyRing | None = None,
    journal: Journal | None = None,
    backends: Backends | None = None,
    clock: Clock | None = None,
    stopping: anyio.Event | None = None,
) -> ASGIApp:
    """Return the whole server as an ASGI application, which starts and stops by its lifespan.

    Args:
        settings: What the operator decided.
        keys: Who may use it; by default the keys of the settings.
        journal: Where pools are remembered, open; by default nowhere.
        backends: What makes sandboxes, as for `LocalSandboxManager`.
        clock: What time is.
        stopping: Set once the server is to stop: answers that go on for ever end then.
    """
    clock = clock if clock is not None else MonotonicClock()
    app = create_routes(settings, backends=backends, clock=clock, journal=journal)
    if stopping is not None:
        app.state.stopping = stopping
    layers: ASGIApp = Idempotency(Index(app), clock)
    layers = Dispatch(layers, tensorlake.data_plane(app.state.tensorlake))
    layers = Departure(layers)
    layers = Bodies(layers, _body_limit(settings), settings.body_timeout)
    keys = keys if keys is not None else KeyRing(settings.keys)
    layers = Access(layers, settings, keys)
    layers = Framing(Ports(layers, settings, keys, app.state.tenants, app.state.addresses))
    return Measure(layers, app.state.metrics, clock)


def create_routes(
    settings: ServerSettings, *, backends: Backends | None, clock: Clock, journal: Journal | None
) -> FastAPI:
    """Return the routes alone, without the layers that guard them."""
    make_manager = _manager_factory(settings, backends, clock, journal)
    tenants = Tenants(make_manager, settings.limits_of, most=_most(settings), clock=clock)
    dialect = create_dialect(tenants, settings, clock)
    addresses = AddressBook()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.started_at = clock.now()
        async with anyio.create_task_group() as group:
            try:
                if journal is not None:
                    group.start_soon(journal.run)
                    await restore(journal, tenants)
                async with dialect.run(), addresses.run():
                    yield
            finally:
                await tenants.aclose()
                group.cancel_scope.cancel()

    app = _Application(
        title="sandpool",
        summary="Warm pools of isolated sandboxes.",
        version=version("sandpool"),
        lifespan=lifespan,
        separate_input_output_schemas=False,
        # A redirect would repeat whatever the path held, and lose the body of who follows it.
        redirect_slashes=False,
    )
    app.state.tenants = tenants
    app.state.addresses = addresses
    app.state.settings = settings
    app.state.clock = clock
    app.state.stopping = anyio.Event()
    app.state.metrics = Metrics()
    setattr(app.state, tensorlake.STATE, dialect)
    for routes in (
        health, metrics, events, pools, claims, sandboxes, leases, ports,
        runs, files, contexts, images,
    ):  # fmt: skip
        # Not included: each router inside of another is matched twice.
        app.router.routes += routes.router.routes
    dialects.mount(app, settings, clock)
    app.exception_handler(SandpoolError)(_answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(WebSocketRequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_fault)
    app.router.default = _answer_nowhere
    return app


def _manager_factory(
    settings: ServerSettings, backends: Backends | None, clock: Clock, journal: Journal | None
) -> ManagerFactory:
    lost: list[tuple[str, str]] | None = None

    def make_manager(name: str, limits: NamespaceLimits, feed: Feed) -> LocalSandboxManager:
        nonlocal lost
        config = SandboxManagerConfig(
            max_sandboxes=limits.max_sandboxes,
            cleanup_interval=settings.cleanup_interval,
            containers=settings.containers,
            egress=settings.egress,
        )
        images = settings.images or None
        if journal is None:
            return LocalSandboxManager(
                config,
                backends=backends,
                images=images,
                clock=clock,
                secrets=settings.secrets,
                on_event=feed.publish,
            )
        if lost is None:
            lost = journal.lost()
        gone = [sandbox_id for namespace, sandbox_id in lost if namespace == name]
        return DurableManager(
            name,
            journal,
            gone,
            config=config,
            backends=backends,
            images=images,
            clock=clock,
            secrets=settings.secrets,
            on_event=feed.publish,
        )

    return make_manager


async def restore(journal: Journal, tenants: Tenants) -> None:
    """Make the pools of the last server again; those that cannot be made are logged."""
    for record in journal.pools():
        manager = (await tenants.get(record.namespace)).manager
        if isinstance(manager, DurableManager):
            await manager.restore(record)


def _most(settings: ServerSettings) -> int:
    named = {key.namespace for key in settings.keys}
    return max(len(named), settings.max_namespaces)


def _body_limit(settings: ServerSettings) -> Callable[[Scope], int]:
    def limit(scope: Scope) -> int:
        return settings.max_upload if _UPLOADS.search(scope["path"]) else settings.max_body

    return limit


async def _answer_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, SandpoolError)
    if isinstance(connection, WebSocket):
        if connection.application_state is WebSocketState.CONNECTING:
            await send_problem(connection.scope, connection.send, error)
        else:
            await connection.close(1011, error.code)
        return None
    if problems.status_of(error) >= 500:
        _log.warning("%s: %s", error.code, error)
    headers = {name.decode(): value.decode() for name, value in problem_headers(error)}
    return JSONResponse(problems.encode(error), problems.status_of(error), headers)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    """Name what is wrong with a request, without what it held: that may be a secret."""
    assert isinstance(error, RequestValidationError)
    wrong = [
        {"where": ".".join(str(part) for part in each["loc"]), "what": str(each["msg"])}
        for each in error.errors()
    ]
    detail = f"{wrong[0]['where']}: {wrong[0]['what']}" if wrong else "the request is malformed"
    return _problem(422, "invalid_spec", detail, errors=wrong)


async def _refuse_invalid(websocket: WebSocket, error: Exception) -> None:
    """Refuse to open a WebSocket whose request is malformed."""
    assert isinstance(error, WebSocketRequestValidationError)
    wrong = next(iter(error.errors()), None)
    place = ".".join(str(part) for part in wrong["loc"]) if wrong else "request"
    refusal = InvalidSpec(f"{place}: {wrong['msg'] if wrong else 'malformed'}")
    await send_problem(websocket.scope, websocket.send, refusal)


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return _problem(error.status_code, code, str(error.detail), headers=error.headers)


async def _answer_nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer requests, and openings of WebSockets, that no route is for."""
    await _problem(404, "route_not_found", "Not Found")(scope, receive, send)


async def _answer_fault(_: Request, error: Exception) -> Response:
    """Say nothing of a fault of the server's own; it is in its log."""
    return _problem(500, problems.INTERNAL, "the server failed; its log says how")


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> Response:
    body: dict[str, object] = {
        "type": f"urn:sandpool:error:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors is not None:
        body["errors"] = errors
    return JSONResponse(body, status, dict(headers or {}), media_type=problems.MEDIA_TYPE)
