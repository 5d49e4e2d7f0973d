"""The processes of a sandbox: run, started, listed, signalled, fed and read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import StreamingResponse

from sandpool.dialects.tensorlake.answers import Route
from sandpool.dialects.tensorlake.context import CurrentDialect, CurrentTarget
from sandpool.dialects.tensorlake.models import milliseconds
from sandpool.dialects.tensorlake.output import Line
from sandpool.dialects.tensorlake.process_models import (
    ProcessInfo,
    RunRequest,
    SignalRequest,
    StartRequest,
)
from sandpool.dialects.tensorlake.process_record import ProcessRecord
from sandpool.dialects.tensorlake.process_table import Spawn
from sandpool.errors import InvalidSpec
from sandpool.models import Stream

router = APIRouter(prefix="/processes", route_class=Route)

_EVENTS = "text/event-stream"

Key = Annotated[str, Path(max_length=128, description="A process's id or name.")]
Channel = Literal["stdout", "stderr", "output"]


@router.post("/run")
async def run(
    wanted: RunRequest, target: CurrentTarget, dialect: CurrentDialect
) -> StreamingResponse:
    """Run a command to its end, and tell what it writes as it comes."""
    process = await target.namespace.start_process(target.record, wanted)
    return StreamingResponse(_run_events(process, dialect.spawn), media_type=_EVENTS)


@router.post("")
async def start(wanted: StartRequest, target: CurrentTarget) -> ProcessInfo:
    """Start a command that goes on by itself."""
    process = await target.namespace.start_process(target.record, wanted)
    return target.record.processes.describe(process)


@router.get("")
async def list_processes(target: CurrentTarget) -> dict[str, list[ProcessInfo]]:
    """Describe the processes, those that ended not long ago included."""
    return {"processes": target.record.processes.all()}


@router.get("/{key}")
async def read_process(key: Key, target: CurrentTarget) -> ProcessInfo:
    """Describe one process."""
    processes = target.record.processes
    return processes.describe(processes.find(key))


@router.delete("/{key}")
async def kill(key: Key, target: CurrentTarget) -> dict[str, bool]:
    """Kill a process; a managed one is not started again."""
    processes = target.record.processes
    await processes.kill(processes.find(key))
    return {"success": True}


@router.post("/{key}/restart")
async def restart(key: Key, target: CurrentTarget) -> ProcessInfo:
    """End a managed process and start it again."""
    await target.namespace.need_running(target.record)
    processes = target.record.processes
    return processes.describe(await processes.restart(processes.find(key)))


@router.post("/{key}/signal")
async def send_signal(key: Key, wanted: SignalRequest, target: CurrentTarget) -> dict[str, bool]:
    """Send a signal to a process's group."""
    process = target.record.processes.find(key)
    await process.send_signal(wanted.signal)
    return {"success": True}


@router.post("/{key}/stdin")
async def write_stdin(key: Key, target: CurrentTarget, request: Request) -> dict[str, bool]:
    """Write the body to a process's standard input."""
    process = target.record.processes.find(key)
    if not process.stdin_writable:
        raise InvalidSpec(f"the standard input of process {key} is closed")
    async for data in request.stream():
        if data:
            await process.write(data)
    return {"success": True}


@router.post("/{key}/stdin/close")
async def close_stdin(key: Key, target: CurrentTarget) -> dict[str, bool]:
    """End a process's standard input."""
    await target.record.processes.find(key).close_stdin()
    return {"success": True}


@router.get("/{key}/{channel}")
async def read_output(key: Key, channel: Channel, target: CurrentTarget) -> dict[str, Any]:
    """Return the lines that a process has written so far."""
    process = target.record.processes.find(key)
    lines = process.output.texts(_stream(channel))
    return {"pid": process.pid, "lines": lines, "line_count": len(lines)}


@router.get("/{key}/{channel}/follow")
async def follow(key: Key, channel: Channel, target: CurrentTarget) -> StreamingResponse:
    """Tell the lines that a process has written, and then those to come until its end."""
    process = target.record.processes.find(key)
    return StreamingResponse(_line_events(process, _stream(channel)), media_type=_EVENTS)


def _stream(channel: Channel) -> Stream | None:
    return None if channel == "output" else channel


async def _run_events(process: ProcessRecord, spawn: Spawn) -> AsyncGenerator[str]:
    try:
        yield _event({"pid": process.pid, "started_at": milliseconds(process.started_at)})
        async for event in _line_events(process, None):
            yield event
        await process.ended.wait()
        yield _event(
            {
                "exit_code": process.exit_code,
                "signal": process.signal,
                "oom_killed": process.status == "oom_killed",
                "reason": process.reason,
            }
        )
    finally:
        # Cancel: whoever asked for it has left, and nobody else waits for its end.
        if not process.is_over:
            spawn(process.kill)


async def _line_events(process: ProcessRecord, stream: Stream | None) -> AsyncGenerator[str]:
    place = 0
    while lines := await process.output.after(place):
        place += len(lines)
        wanted = [line for line in lines if stream in (None, line.stream)]
        if wanted:
            yield "".join(_event(_line(line)) for line in wanted)


def _line(line: Line) -> dict[str, Any]:
    return {"line": line.text, "timestamp": line.at, "stream": line.stream}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
