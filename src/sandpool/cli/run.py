"""`sandpool run`: one job in one fresh sandbox, with our own input and output as its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

import anyio

from sandpool.backends.base import Box, BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.cli.relay import attend
from sandpool.service import Process


@dataclass(frozen=True)
class Job:
    """What is to be run: code with its arguments, or a command."""

    kind: Literal["code", "command"]
    code: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout: float | None = None


async def run_job(spec: BoxSpec, job: Job) -> int:
    """Run `job` in a fresh sandbox, and return the exit code of the command line."""
    backend = NativeBackend()
    try:
        box = await backend.create(spec, box_id=f"run-{os.getpid()}")
        process = await _start(box, job)
        async with process:
            return await attend(process)
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the backend
            await backend.aclose()


async def _start(box: Box, job: Job) -> Process:
    options = RunOptions(argv=job.argv, env=job.env, stdin=None, timeout=job.timeout)
    if job.kind == "code":
        return await box.start_code(job.code, options)
    return await box.start(options)
