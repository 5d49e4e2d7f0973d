"""What is run in a sandbox to its end, and what is attached to while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response, WebSocket

from sandpool.models import ExecResult
from sandpool.server.attached import serve_process, serve_stream
from sandpool.server.context import CurrentSandbox
from sandpool.server.following import ANSWERS_EVENTS, Followed
from sandpool.service import OnOutput
from sandpool.wire import events, problems
from sandpool.wire.runs import CodeRun, CommandRun

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}", tags=["runs"], responses=problems.RESPONSES)

_Accept = Annotated[str, Header(include_in_schema=False)]

_MOST_OUTPUT = 64 * 1024 * 1024
"""Bytes of stdout and of stderr that an answer holds at most; events have no such bound."""


@router.post("/code", response_model=ExecResult, responses=ANSWERS_EVENTS)
async def run_code(
    sandbox: CurrentSandbox, body: CodeRun, *, accept: _Accept = "*/*"
) -> ExecResult | Response:
    """Run Python code to its end; with `Accept: text/event-stream`, its output as it comes."""

    async def run(max_output: int | None, on_output: OnOutput | None) -> ExecResult:
        return await sandbox.run_code(
            body.code,
            argv=body.argv,
            env=body.env,
            cwd=body.cwd,
            stdin=body.stdin_bytes(),
            timeout=body.timeout,
            max_output=max_output,
            on_output=on_output,
        )

    return await _answer(run, body.max_output, accept)


@router.post("/commands", response_model=ExecResult, responses=ANSWERS_EVENTS)
async def run_command(
    sandbox: CurrentSandbox, body: CommandRun, *, accept: _Accept = "*/*"
) -> ExecResult | Response:
    """Run a command to its end; with `Accept: text/event-stream`, its output as it comes."""

    async def run(max_output: int | None, on_output: OnOutput | None) -> ExecResult:
        return await sandbox.exec(
            body.command,
            env=body.env,
            cwd=body.cwd,
            stdin=body.stdin_bytes(),
            timeout=body.timeout,
            max_output=max_output,
            on_output=on_output,
        )

    return await _answer(run, body.max_output, accept)


async def _answer(
    run: Callable[[int | None, OnOutput | None], Awaitable[ExecResult]],
    max_output: int | None,
    accept: str,
) -> ExecResult | Response:
    if events.MEDIA_TYPE not in accept:
        most = _MOST_OUTPUT if max_output is None else min(max_output, _MOST_OUTPUT)
        return await run(most, None)

    async def follow(on_output: OnOutput) -> bytes:
        result = await run(max_output, on_output)
        return events.write("result", result.model_dump(mode="json"))

    return Followed(follow)


@router.websocket("/attach")
async def attach(websocket: WebSocket, sandbox: CurrentSandbox) -> None:
    """Start a process, and be its input, output and terminal until one of the two ends."""
    await websocket.accept()
    await serve_process(websocket, sandbox)


@router.websocket("/ports/{port}/stream")
async def dial(
    websocket: WebSocket, sandbox: CurrentSandbox, port: Annotated[int, Path(ge=1, le=65_535)]
) -> None:
    """Connect to a port on the sandbox's loopback; the messages' bytes are the connection's."""
    stream = await sandbox.dial(port)
    # Cancel: from here on the connection is ours, and `serve_stream` closes it.
    await serve_stream(websocket, stream)
