"""`sandpool pool run`: one job in a sandbox that is borrowed for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from sandpool.cli.relay import attend, report
from sandpool.client import HttpSandboxManager
from sandpool.models import Stream


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run: code with its arguments, or, without code, a command."""

    code: str | None
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout: float | None = None


async def run(manager: HttpSandboxManager, pool: str, job: Job, *, wait: float | None) -> int:
    """Borrow a sandbox, run the job in it, and return the job's exit code."""
    async with manager.lease(pool, timeout=wait) as sandbox:
        if job.code is not None:
            return report(
                await sandbox.run_code(
                    job.code, argv=job.argv, env=job.env, timeout=job.timeout, on_output=_show
                )
            )
        process = await sandbox.start_process(job.argv, env=job.env, timeout=job.timeout)
        async with process:
            return await attend(process)


def _show(stream: Stream, data: bytes) -> None:
    target = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    target.write(data)
    target.flush()
