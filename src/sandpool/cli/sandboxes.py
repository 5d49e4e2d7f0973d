"""`sandpool sandbox`: a server's sandboxes, and what is run and stored in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandpool.cli import exits
from sandpool.cli.connection import find_sandbox, missing_sandbox
from sandpool.cli.output import print_json, print_table
from sandpool.cli.relay import attend
from sandpool.cli.terminal import attend_terminal
from sandpool.client import HttpSandboxManager
from sandpool.models import SandboxInfo, SandboxStatus, SandboxType

_COLUMNS = ("id", "status", "type", "image", "created")


async def show_all(
    manager: HttpSandboxManager, status: SandboxStatus | None, *, as_json: bool, only_ids: bool
) -> int:
    """Print all sandboxes, or those with one status."""
    found = await manager.list_sandboxes(status)
    if as_json:
        print_json([info.model_dump(mode="json") for info in found])
    elif only_ids:
        for info in found:
            print(info.id)
    else:
        print_table(_COLUMNS, map(_row, found))
    return exits.OK


async def show(manager: HttpSandboxManager, sandbox_id: str) -> int:
    """Print one sandbox, as JSON: it has no fixed columns."""
    info = await manager.get_sandbox_info(sandbox_id)
    if info is None:
        raise missing_sandbox(sandbox_id)
    print_json(info.model_dump(mode="json"))
    return exits.OK


async def create(
    manager: HttpSandboxManager, sandbox_id: str | None, config: dict[str, Any]
) -> int:
    """Make a sandbox that belongs to no pool, and print its id."""
    made = await manager.create_sandbox(SandboxType.NATIVE, config, sandbox_id)
    manager.keep_sandbox(made)
    print(made)
    return exits.OK


async def run(
    manager: HttpSandboxManager,
    sandbox_id: str,
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    timeout: float | None,
) -> int:
    """Run a command with our input and output as its own; return its exit code."""
    sandbox = await find_sandbox(manager, sandbox_id)
    process = await sandbox.start_process(argv, env=env, cwd=cwd, timeout=timeout)
    async with process:
        return await attend(process)


async def shell(manager: HttpSandboxManager, sandbox_id: str, argv: tuple[str, ...]) -> int:
    """Run a command on a terminal of its own that ours shows; return its exit code."""
    return await attend_terminal(await find_sandbox(manager, sandbox_id), argv)


async def logs(manager: HttpSandboxManager, sandbox_id: str) -> int:
    """Print the last of what the entrypoint of its pool has said."""
    print(await manager.get_sandbox_logs(sandbox_id), end="")
    return exits.OK


async def stop(manager: HttpSandboxManager, sandbox_ids: list[str]) -> int:
    """End the processes of sandboxes and keep their records."""

    async def end(sandbox_id: str) -> None:
        if not await manager.stop_sandbox(sandbox_id):
            raise missing_sandbox(sandbox_id)

    return await exits.each(sandbox_ids, end)


async def delete(manager: HttpSandboxManager, sandbox_ids: list[str]) -> int:
    """End sandboxes and forget them."""

    async def end(sandbox_id: str) -> None:
        if not await manager.delete_sandbox(sandbox_id):
            raise missing_sandbox(sandbox_id)

    return await exits.each(sandbox_ids, end)


async def extend(manager: HttpSandboxManager, sandbox_id: str, lifetime: float) -> int:
    """Let a claimed sandbox end so many seconds from now."""
    await manager.extend_sandbox(sandbox_id, lifetime)
    return exits.OK


async def url(manager: HttpSandboxManager, sandbox_id: str, port: int) -> int:
    """Print the address of one of its ports."""
    print(await (await find_sandbox(manager, sandbox_id)).url(port))
    return exits.OK


def _row(info: SandboxInfo) -> tuple[object, ...]:
    created = info.created_at.isoformat(sep=" ", timespec="seconds")
    return (info.id, info.status.value, info.type, info.config.get("image"), created)
