"""WebSockets that are attached to something in a sandbox: a process, or a connection to a port.

Each goes both ways, no faster than its slower end, until one of the ends is there no more.
"""

from __future__ import annotations

from typing import TypeVar

import anyio
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from sandpool.errors import InvalidSpec, SandpoolError
from sandpool.manager.recipe import invalid
from sandpool.models import ExecResult
from sandpool.service import ByteStream, Process, Sandbox
from sandpool.wire import problems
from sandpool.wire.runs import (
    END_OF_STREAM,
    LARGEST_PIECE,
    STDIN,
    TAGS,
    Attachment,
    Control,
    Ended,
    Started,
)

_PATIENCE = 30.0
"""Seconds in which an attached client has to say what it wants."""

_CLOSE_BOUND = 5.0
"""Seconds that closing may take."""

_Model = TypeVar("_Model", bound=BaseModel)


async def serve_process(websocket: WebSocket, sandbox: Sandbox) -> None:
    """Start what the first message asks for, and relay until it ends; closed, it is killed."""
    try:
        with anyio.fail_after(_PATIENCE):
            wanted = await _receive(websocket, Attachment)
        async with await _start(sandbox, wanted) as process:
            await websocket.send_text(Started(pid=process.pid).model_dump_json())
            ended = Ended(result=await _relay_process(websocket, process))
    except WebSocketDisconnect:
        return
    except TimeoutError:
        await websocket.close(1008, "request_timeout")
        return
    except SandpoolError as error:
        ended = Ended(error=problems.encode(error))
    try:
        await websocket.send_text(ended.model_dump_json(exclude_none=True))
        await websocket.close()
    except WebSocketDisconnect:
        return


async def serve_stream(websocket: WebSocket, stream: ByteStream) -> None:
    """Relay between a WebSocket, which is opened here, and a connection, which is closed here."""
    try:
        await websocket.accept()
        async with anyio.create_task_group() as group:
            group.start_soon(_pump_in, websocket, stream, group.cancel_scope)
            await _pump_out(websocket, stream, group.cancel_scope)
    finally:
        with anyio.move_on_after(_CLOSE_BOUND, shield=True):
            await stream.aclose()


async def _start(sandbox: Sandbox, wanted: Attachment) -> Process:
    if wanted.pty is None:
        return await sandbox.start_process(
            wanted.command, env=wanted.env, cwd=wanted.cwd, timeout=wanted.timeout
        )
    if wanted.timeout is not None:
        raise InvalidSpec("timeout: a terminal has none; close it instead")
    return await sandbox.open_pty(
        wanted.command, rows=wanted.pty.rows, cols=wanted.pty.cols, env=wanted.env, cwd=wanted.cwd
    )


async def _relay_process(websocket: WebSocket, process: Process) -> ExecResult:
    """Return what the process did; raises `WebSocketDisconnect` if the client left before."""
    failures: list[SandpoolError | WebSocketDisconnect] = []
    results: list[ExecResult] = []
    # Failures are carried out by hand: a task group would wrap them.
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            try:
                await _obey(websocket, process)
            except (SandpoolError, WebSocketDisconnect) as error:
                failures.append(error)
                group.cancel_scope.cancel()

        group.start_soon(hear)
        try:
            is_pid_told = process.pid is not None
            async for stream, data in process:
                is_pid_told = is_pid_told or await _tell_pid(websocket, process)
                await websocket.send_bytes(TAGS[stream] + data)
            results.append(await process.wait())
            is_pid_told = is_pid_told or await _tell_pid(websocket, process)
        except (SandpoolError, WebSocketDisconnect) as error:
            failures.append(error)
        group.cancel_scope.cancel()
    if results:
        return results[0]
    raise failures[0]


async def _tell_pid(websocket: WebSocket, process: Process) -> bool:
    """Tell the process id if it is known by now; return whether it is."""
    if process.pid is None:
        return False
    await websocket.send_text(Started(pid=process.pid).model_dump_json())
    return True


async def _obey(websocket: WebSocket, process: Process) -> None:
    """Do what the client's messages say, for as long as they come."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        data = message.get("bytes")
        if data is not None:
            if data[:1] != bytes([STDIN]):
                raise InvalidSpec("a binary message begins with a zero byte, for standard input")
            await process.send(data[1:])
            continue
        control = _parse(Control, message.get("text") or "")
        if control.signal is not None:
            await process.signal(control.signal)
        if control.resize is not None:
            await process.resize(control.resize.rows, control.resize.cols)
        if control.eof:
            await process.send_eof()


async def _pump_in(websocket: WebSocket, stream: ByteStream, scope: anyio.CancelScope) -> None:
    """Send on what the client sends, until it has left."""
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            data = message.get("bytes")
            if data is not None:
                await stream.send(data)
            elif message.get("text") == END_OF_STREAM:
                await stream.send_eof()
    except (SandpoolError, OSError):
        await _close(websocket, "dial_failed")
    scope.cancel()


async def _pump_out(websocket: WebSocket, stream: ByteStream, scope: anyio.CancelScope) -> None:
    """Send the client what comes, and the end of it; the client closes."""
    try:
        while data := await stream.receive():
            for start in range(0, len(data), LARGEST_PIECE):
                await websocket.send_bytes(data[start : start + LARGEST_PIECE])
        await websocket.send_text(END_OF_STREAM)
    except WebSocketDisconnect:
        scope.cancel()
    except (SandpoolError, OSError) as error:
        code = error.code if isinstance(error, SandpoolError) else "dial_failed"
        await _close(websocket, code)
        scope.cancel()


async def _close(websocket: WebSocket, reason: str) -> None:
    """Close a WebSocket because what it was attached to has failed."""
    try:
        await websocket.close(1011, reason)
    except (WebSocketDisconnect, RuntimeError):
        return  # the client was quicker


async def _receive(websocket: WebSocket, kind: type[_Model]) -> _Model:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    return _parse(kind, message.get("text") or "")


def _parse(kind: type[_Model], text: str) -> _Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise invalid(kind.__name__, error) from None
