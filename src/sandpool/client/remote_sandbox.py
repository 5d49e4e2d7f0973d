"""`RemoteSandbox`: one sandbox of a server, through the same interface as a local one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sandpool.client import answers
from sandpool.client.followed import read_result
from sandpool.client.remote_contexts import RemoteContexts
from sandpool.client.remote_files import RemoteFiles
from sandpool.client.remote_process import RemoteProcess, RemoteStream
from sandpool.client.transport import Transport, segment
from sandpool.errors import BadAddress
from sandpool.manager.recipe import parse_config, parse_type
from sandpool.models import (
    DEFAULT_MAX_OUTPUT,
    Base64Data,
    ExecResult,
    SandboxConfig,
    SandboxInfo,
    SandboxStatus,
    SandboxType,
    ToolResult,
)
from sandpool.service import OnOutput
from sandpool.wire import events
from sandpool.wire.requests import PortAddress
from sandpool.wire.runs import Attachment, CodeRun, CommandRun


class RemoteSandbox:
    """One sandbox of a server; implements `service.Sandbox`."""

    def __init__(
        self,
        transport: Transport,
        info: SandboxInfo,
        lease_id: str | None = None,
        *,
        remaining: float | None = None,
    ) -> None:
        """Name one that is there.

        Args:
            transport: Calls to its server.
            info: What the server says of it.
            lease_id: The lease through which it is used; None: it is called by its id.
            remaining: Seconds from now until it ends by itself; None: it does not.
        """
        self._transport = transport
        self._info = info
        self._lease_id = lease_id
        self._path = f"/v1/sandboxes/{segment(info.id)}"
        # Anchored on two clocks, so that a step of the wall clock changes no span.
        self._ends_at = None if remaining is None else time.monotonic() + remaining
        self._expires_at = None if remaining is None else time.time() + remaining

    def __repr__(self) -> str:
        return f"<RemoteSandbox {self.id} of {self._transport.base_url}>"

    # What it is.

    @property
    def id(self) -> str:
        """Its id."""
        return self._info.id

    @property
    def config(self) -> SandboxConfig:
        """What it was made from; environment variables by name only."""
        return parse_config(self.sandbox_type, self._info.config)

    @property
    def status(self) -> SandboxStatus:
        """Its status when the server was last asked, which `refresh` does."""
        return self._info.status

    @property
    def sandbox_type(self) -> SandboxType:
        """What it is made of."""
        return parse_type(self._info.type)

    @property
    def remaining(self) -> float | None:
        """Seconds until it ends by itself; None: it has no end of its own."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def expires_at(self) -> float | None:
        """When it ends by itself, in seconds since the epoch; None: it has no end of its own."""
        return self._expires_at

    @property
    def files(self) -> RemoteFiles:
        """Its files."""
        return RemoteFiles(self._transport, self.id, self._lease_id)

    @property
    def contexts(self) -> RemoteContexts:
        """Its stateful interpreters."""
        return RemoteContexts(self._transport, self.id, self._lease_id)

    async def refresh(self) -> SandboxInfo:
        """Ask the server what it is by now; `SandboxNotFound`, `SandboxDied`."""
        response = await self._transport.call("GET", self._path)
        self._info = answers.parse(SandboxInfo, response.content)
        return self._info

    # Running things.

    async def run_code(
        self,
        code: str,
        *,
        argv: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        timeout: float | None = None,
        max_output: int | None = DEFAULT_MAX_OUTPUT,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run Python code as `python3 script.py` would, in a fork of the warm interpreter."""
        body = answers.body(
            CodeRun,
            code=code,
            argv=tuple(argv),
            env=dict(env or {}),
            cwd=cwd,
            stdin=_stdin(stdin),
            timeout=timeout,
            max_output=max_output,
        )
        return await self._run("/code", body, on_output)

    async def exec(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        timeout: float | None = None,
        max_output: int | None = DEFAULT_MAX_OUTPUT,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run a command to its end: a sequence never through a shell, a string always."""
        body = answers.body(
            CommandRun,
            command=_command(command),
            env=dict(env or {}),
            cwd=cwd,
            stdin=_stdin(stdin),
            timeout=timeout,
            max_output=max_output,
        )
        return await self._run("/commands", body, on_output)

    async def start_process(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
    ) -> RemoteProcess:
        """Start a command with its standard input open, and return its handle."""
        return await self._attach(
            command=_command(command), env=dict(env or {}), cwd=cwd, timeout=timeout
        )

    async def open_pty(
        self,
        command: Sequence[str] | str = ("/bin/sh",),
        *,
        rows: int = 24,
        cols: int = 80,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
    ) -> RemoteProcess:
        """Start a command on a terminal of its own."""
        return await self._attach(
            command=_command(command),
            env=dict(env or {}),
            cwd=cwd,
            pty={"rows": rows, "cols": cols},
        )

    async def dial(self, port: int) -> RemoteStream:
        """Connect to a port on the sandbox's loopback."""
        _check_port(port)
        return await RemoteStream.dial(
            self._transport, f"{self._path}/ports/{port}/stream", self._lease_id
        )

    async def url(self, port: int, *, private: bool = False) -> str:
        """Return an address that any HTTP or WebSocket client can call, until the lease ends."""
        _check_port(port)
        response = await self._transport.call(
            "GET",
            f"{self._path}/ports/{port}",
            params={"private": private or None},
            lease_id=self._lease_id,
        )
        return answers.parse(PortAddress, response.content).url

    async def ping(self) -> None:
        """Return when the guest has answered."""
        await self._transport.call("POST", f"{self._path}/ping", lease_id=self._lease_id)

    async def execute_tool(self, tool_name: str, parameters: Mapping[str, Any]) -> ToolResult:
        """Run one tool."""
        response = await self._transport.call(
            "POST",
            f"{self._path}/tools/{segment(tool_name)}",
            json={"parameters": dict(parameters)},
            lease_id=self._lease_id,
        )
        return answers.parse(ToolResult, response.content)

    async def _run(self, path: str, body: dict[str, Any], on_output: OnOutput | None) -> ExecResult:
        path = self._path + path
        if on_output is None:
            response = await self._transport.call("POST", path, json=body, lease_id=self._lease_id)
            return answers.parse(ExecResult, response.content)
        async with self._transport.stream(
            "POST", path, json=body, lease_id=self._lease_id, accept=events.MEDIA_TYPE
        ) as answer:
            return answers.parse(ExecResult, await read_result(answer, on_output))

    async def _attach(self, **fields: object) -> RemoteProcess:
        wanted = Attachment.model_validate(answers.body(Attachment, **fields))
        return await RemoteProcess.start(
            self._transport, f"{self._path}/attach", wanted, self._lease_id
        )


def _command(command: Sequence[str] | str) -> str | tuple[str, ...]:
    return command if isinstance(command, str) else tuple(command)


def _stdin(data: bytes | str) -> str | Base64Data:
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64Data.of(data)


def _check_port(port: int) -> None:
    if not 1 <= port <= 65_535:
        raise BadAddress(f"{port!r} is not a port; it is a number from 1 to 65535")
