"""How commands reach a server: where it is, who is calling, and how they end when it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from sandpool import config
from sandpool.cli import exits
from sandpool.errors import SandboxNotFound, SandpoolError

if TYPE_CHECKING:
    from sandpool.client import HttpSandboxManager
    from sandpool.client.remote_sandbox import RemoteSandbox

DEFAULT_URL = "http://127.0.0.1:8400"
"""Where `sandpool serve` listens unless it is told otherwise."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=config.URL,
        help=f"Where the server is.  [default: {DEFAULT_URL}]",
        show_default=False,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar=config.API_KEY, help="Who is calling.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and a key for it."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def manager(self) -> HttpSandboxManager:
        """Return a manager of the server's things, not started."""
        from sandpool.client import HttpSandboxManager

        return HttpSandboxManager(base_url=self.url or DEFAULT_URL, api_key=self.api_key)

    def run(self, work: Callable[[HttpSandboxManager], Awaitable[int]]) -> None:
        """Do the work of a command, and end with the exit code that it returns.

        What the server refuses is said in one sentence, with the exit code that goes with it.
        """

        async def call() -> int:
            async with self.manager() as manager:
                return await work(manager)

        try:
            code = anyio.run(call)
        except SandpoolError as error:
            code = exits.tell(error)
        raise typer.Exit(code)


async def find_sandbox(manager: HttpSandboxManager, sandbox_id: str) -> RemoteSandbox:
    """Return a sandbox of the server; `SandboxNotFound`."""
    sandbox = await manager.get_sandbox(sandbox_id)
    if sandbox is None:
        raise missing_sandbox(sandbox_id)
    return sandbox


def missing_sandbox(sandbox_id: str) -> SandboxNotFound:
    """Return what is said of one that the server does not have."""
    return SandboxNotFound(f"there is no sandbox {sandbox_id}; see `sandpool sandbox list`")
