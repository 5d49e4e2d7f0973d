"""The two faces of the dialect: routes for its control plane, an application for its data plane."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketState

from sandpool.dialects.tensorlake import (
    archive,
    beyond,
    daemon,
    files,
    pools,
    processes,
    sandboxes,
    terminals,
    tunnels,
)
from sandpool.dialects.tensorlake.answers import refusal
from sandpool.dialects.tensorlake.context import STATE
from sandpool.dialects.tensorlake.dialect import TensorlakeDialect
from sandpool.errors import SandpoolError

NAMESPACED = "/v1/namespaces/{namespace}"
"""The prefix of the form that names its namespace; it is always at the root."""

_REFUSED, _FAILED = 1008, 1011
"""Codes that a WebSocket is closed with."""
_CAN_REFUSE = "websocket.http.response"
"""The extension by which what opens a WebSocket can be answered like any request."""


def control_plane() -> APIRouter:
    """Return the routes of pools and sandboxes, to be included below `NAMESPACED` and flat.

    The application that includes them has the dialect in its state, as `STATE`.
    """
    router = APIRouter(include_in_schema=False)
    for routes in (pools, sandboxes, archive, beyond):
        router.include_router(routes.router)
    return router


def data_plane(dialect: TensorlakeDialect) -> FastAPI:
    """Return the application that serves single sandboxes, each named in the scope."""
    app = FastAPI(openapi_url=None)
    setattr(app.state, STATE, dialect)
    for routes in (processes, files, daemon, terminals, tunnels):
        app.include_router(routes.router, prefix="/api/v1")
    app.add_exception_handler(SandpoolError, _refuse_websocket)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_fault)
    return app


async def _refuse_websocket(websocket: WebSocket, error: Exception) -> None:
    """Answer what opens a WebSocket; the errors of other routes are answered by `Route`."""
    assert isinstance(error, SandpoolError)
    if websocket.application_state is not WebSocketState.CONNECTING:
        await websocket.close(_FAILED, error.code)
    elif _CAN_REFUSE in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(refusal(error))
    else:
        await websocket.close(_REFUSED, error.code)


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    content = {"message": str(error.detail), "code": "http_error"}
    return JSONResponse(content, error.status_code, headers=dict(error.headers or {}))


async def _answer_fault(_: Request, error: Exception) -> Response:
    """Say nothing of a fault of the server's own; it is in its log."""
    return JSONResponse({"message": "the server failed; its log says how", "code": "internal"}, 500)
