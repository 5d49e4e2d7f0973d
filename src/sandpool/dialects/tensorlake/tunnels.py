"""Tunnels: a WebSocket whose binary frames are the bytes of one connection inside a sandbox."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from sandpool.dialects.tensorlake.context import CurrentTarget
from sandpool.errors import SandpoolError
from sandpool.service import ByteStream

router = APIRouter(prefix="/tunnels")

Port = Annotated[int, Query(ge=1, le=65_535)]

_NORMAL, _FAILED = 1000, 1011
"""Codes that a WebSocket is closed with."""
_CLOSE_BOUND = 5.0
"""Seconds that closing may take."""


@router.websocket("/tcp")
async def tunnel(websocket: WebSocket, target: CurrentTarget, port: Port) -> None:
    """Connect to a port on the sandbox's loopback; refused if nothing listens there."""
    sandbox = await target.namespace.need_running(target.record)
    stream = await sandbox.dial(port)
    try:
        await websocket.accept()
        code = await _relay(websocket, stream)
        if code is not None:
            await websocket.close(code)
    except WebSocketDisconnect:
        return
    finally:
        with anyio.move_on_after(_CLOSE_BOUND, shield=True):
            await stream.aclose()


async def _relay(websocket: WebSocket, stream: ByteStream) -> int | None:
    """Pass on both ways until one side has ended; return what to close with, None: it is closed."""
    code: int | None = None
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            nonlocal code
            try:
                await _pass_in(websocket, stream)
            except (SandpoolError, OSError):
                code = _FAILED
            group.cancel_scope.cancel()

        group.start_soon(hear)
        try:
            while data := await stream.receive():
                await websocket.send_bytes(data)
            code = _NORMAL
        except WebSocketDisconnect:
            code = None
        except (SandpoolError, OSError):
            code = _FAILED
        group.cancel_scope.cancel()
    return code


async def _pass_in(websocket: WebSocket, stream: ByteStream) -> None:
    """Send on what the client sends, until it has left."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        data = message.get("bytes")
        if data:
            await stream.send(data)
