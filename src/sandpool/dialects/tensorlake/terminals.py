"""The terminals of a sandbox: opened, attached to by a WebSocket, and ended.

Each binary frame begins with a byte that says what it is:

    0  bytes, typed on the terminal or written by its command
    1  from the client: its size, as two big-endian 16-bit numbers, columns and rows
    2  from the client: it is there
    3  to the client: the exit code, as a big-endian signed 32-bit number; the last frame
"""

from __future__ import annotations

import struct
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Query, WebSocket, WebSocketDisconnect

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentTarget
from sandpool.dialects.tensorlake.process_models import TerminalRequest
from sandpool.dialects.tensorlake.terminal import Terminal
from sandpool.errors import SandpoolError

router = APIRouter(prefix="/pty", route_class=Route)

_DATA, _RESIZE, _EXIT = 0, 1, 3

_NORMAL = 1000
_TERMINATED = "session terminated"
"""Why a WebSocket is closed whose sandbox has ended; clients look for these words."""

SessionId = Annotated[str, Path(max_length=64)]
Token = Annotated[str, Query(max_length=256)]
TokenHeader = Annotated[str, Header(alias="X-PTY-Token", max_length=256)]


@router.post("", status_code=201)
async def open_terminal(wanted: TerminalRequest, target: CurrentTarget) -> dict[str, str]:
    """Start a command on a terminal; its output waits until a client attaches."""
    terminal = await target.namespace.open_terminal(target.record, wanted)
    return {"session_id": terminal.id, "token": terminal.token}


@router.delete("/{session_id}")
async def end_terminal(session_id: SessionId, target: CurrentTarget) -> dict[str, bool]:
    """Kill what runs on a terminal, and forget it."""
    terminals = target.record.terminals
    terminal = terminals.find(session_id)
    terminals.forget(terminal)
    await terminal.kill()
    return {"success": True}


@router.websocket("/{session_id}/ws")
async def attach(
    websocket: WebSocket,
    session_id: SessionId,
    target: CurrentTarget,
    token: Token = "",
    token_header: TokenHeader = "",
) -> None:
    """Attach to a terminal until it or the client ends; a client that leaves may come again."""
    await target.namespace.need_running(target.record)
    terminals = target.record.terminals
    terminal = terminals.find(session_id)
    terminal.attach(token_header or token)
    try:
        await websocket.accept()
        if await _relay(websocket, terminal):
            terminals.forget(terminal)
            await _tell_end(websocket, terminal)
    except WebSocketDisconnect:
        return
    finally:
        terminal.detach()


async def _relay(websocket: WebSocket, terminal: Terminal) -> bool:
    """Pass on both ways; whether it was the terminal that ended, and not the client."""
    has_ended = False
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            await _obey(websocket, terminal)
            group.cancel_scope.cancel()

        group.start_soon(hear)
        try:
            while data := await terminal.receive():
                await websocket.send_bytes(bytes([_DATA]) + data)
            has_ended = True
        except WebSocketDisconnect:
            pass
        group.cancel_scope.cancel()
    return has_ended


async def _obey(websocket: WebSocket, terminal: Terminal) -> None:
    """Do what the client's frames say, until it has left; those that say nothing are skipped."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        frame: bytes = message.get("bytes") or b""
        try:
            if frame[:1] == bytes([_DATA]):
                await terminal.send(frame[1:])
            elif frame[:1] == bytes([_RESIZE]) and len(frame) == 5:
                cols, rows = struct.unpack(">HH", frame[1:])
                await terminal.resize(rows, cols)
        except SandpoolError:
            continue  # the command has ended, and so will its output


async def _tell_end(websocket: WebSocket, terminal: Terminal) -> None:
    if terminal.exit_code is None:
        await websocket.close(_NORMAL, _TERMINATED)
        return
    await websocket.send_bytes(struct.pack(">Bi", _EXIT, terminal.exit_code))
    await websocket.close(_NORMAL, f"exit:{terminal.exit_code}")
