"""`Sandbox`: what a manager holds, in the enclave interface.

Subclass it and register the class with `SandboxFactory` to give managers a sandbox type of your
own.  sandpool's own sandboxes are `LocalSandbox`.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio.to_thread

from sandpool.clock import MonotonicClock
from sandpool.errors import (
    SandboxNotActive,
    SandpoolError,
    ToolDisabled,
    ToolNotFound,
    Unsupported,
)
from sandpool.ids import new_sandbox_id
from sandpool.manager import archive
from sandpool.manager.recipe import redacted
from sandpool.models import (
    CommandResult,
    SandboxConfig,
    SandboxInfo,
    SandboxStatus,
    SandboxType,
    ToolResult,
)
from sandpool.tools import Tool, ToolFactory

_log = logging.getLogger(__name__)

ACTIVE = frozenset({SandboxStatus.RUNNING, SandboxStatus.IDLE, SandboxStatus.BUSY})
"""The states in which a sandbox can run something."""


class Sandbox(abc.ABC):
    """One sandbox with its tools.

    `id`, `config`, `status`, `created_at`, `updated_at` and `metadata` are part of the interface.
    """

    def __init__(self, config: SandboxConfig, sandbox_id: str | None = None) -> None:
        """Describe it; nothing runs before `start`."""
        now = MonotonicClock().utc()
        self.id = sandbox_id or new_sandbox_id()
        self.config = config
        self.status = SandboxStatus.INITIALIZING
        self.created_at = now
        self.updated_at = now
        self.metadata: dict[str, Any] = {}
        self._since = MonotonicClock().now()
        self._tools: dict[str, Tool] = {}
        self._disabled: set[str] = set()

    @property
    @abc.abstractmethod
    def sandbox_type(self) -> SandboxType:
        """What it is made of."""

    @property
    def since(self) -> float:
        """When its status last changed, on the monotonic clock."""
        return self._since

    @property
    def is_in_use(self) -> bool:
        """Whether a call is in progress, as far as is known."""
        return self.status is SandboxStatus.BUSY

    @property
    def facts(self) -> Mapping[str, Any]:
        """What there is to tell people of what it consists of."""
        return {}

    def farewell(self) -> SandpoolError | None:
        """Return what calls raise because it has ended for its holder; None: it has not."""
        return None

    @abc.abstractmethod
    async def start(self) -> None:
        """Make it ready to run; a `RuntimeError` leaves nothing behind."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """End what runs in it."""

    @abc.abstractmethod
    async def cleanup(self) -> None:
        """Remove what is left of it; called after `stop`."""

    @abc.abstractmethod
    async def get_execution_context(self) -> Any:
        """Return what its tools run in."""

    async def execute_command(
        self, command: str | list[str], timeout: int | None = None, stream: bool = True
    ) -> CommandResult:
        """Run a command: a string by a shell, a list as it is."""
        raise Unsupported(f"a {self.sandbox_type.value} sandbox runs no commands")

    # Tools.

    async def initialize_tools(self) -> None:
        """Build the tools of `config.tools_config`.

        Raises `ValueError` for a name that is not registered and for settings that a tool refuses.
        """
        for name, settings in self.config.tools_config.items():
            if name not in self._tools and name not in self._disabled:
                self.add_tool(ToolFactory.create_tool(name, **settings))

    def add_tool(self, tool: Tool) -> None:
        """Add a tool; a duplicate, disabled or incompatible one is ignored with a warning."""
        if tool.name in self._tools:
            _log.warning("sandbox %s has a tool %s already", self.id, tool.name)
        elif not tool.enabled:
            self._disabled.add(tool.name)
            _log.warning("sandbox %s: tool %s is disabled", self.id, tool.name)
        elif not tool.is_compatible_with_sandbox(self.sandbox_type):
            kind = self.sandbox_type.value
            _log.warning("sandbox %s: a %s cannot run tool %s", self.id, kind, tool.name)
        else:
            self._tools[tool.name] = tool

    def get_tool(self, tool_name: str) -> Tool | None:
        """Return a tool, or None."""
        return self._tools.get(tool_name)

    def list_tools(self) -> list[str]:
        """Return the names of its tools."""
        return list(self._tools)

    def get_available_tools(self) -> dict[str, Any]:
        """Return the function schema of each enabled tool."""
        return {name: tool.schema for name, tool in self._tools.items() if tool.enabled}

    def need_tool(self, tool_name: str) -> Tool:
        """Return a tool that can be used; raises `ToolNotFound` or `ToolDisabled`."""
        tool = self.get_tool(tool_name)
        if tool_name in self._disabled or (tool is not None and not tool.enabled):
            raise ToolDisabled(f"Tool {tool_name} is not enabled")
        if tool is None:
            raise ToolNotFound(f"Tool {tool_name} is not available")
        return tool

    async def execute_tool(self, tool_name: str, parameters: Mapping[str, Any]) -> ToolResult:
        """Run one tool; `ToolNotFound`, `ToolDisabled`, `InvalidToolArgument`."""
        return await self.need_tool(tool_name).run(self, parameters)

    # Files.

    async def put_archive(self, target_dir: str, data: bytes) -> bool:
        """Unpack a tar archive below `target_dir`."""
        raise Unsupported(f"a {self.sandbox_type.value} sandbox takes no archives")

    async def put_dir(self, source_dir: str | Path, target_dir: str) -> bool:
        """Copy the contents of a directory of this machine to `target_dir`."""
        data = await anyio.to_thread.run_sync(archive.pack_dir, source_dir)
        return await self.put_archive(archive.check_target_dir(target_dir), data)

    async def put_file(self, file_path: str, content: str, encoding: str = "utf-8") -> bool:
        """Write a text file at an absolute path."""
        directory, name = archive.split_file_path(file_path)
        return await self.put_archive(directory, archive.pack_file(name, content.encode(encoding)))

    # What it is.

    def update_status(self, status: SandboxStatus) -> None:
        """Note a change of status, and when it was."""
        self.status = status
        self.updated_at = MonotonicClock().utc()
        self._since = MonotonicClock().now()

    async def check(self) -> None:
        """Raise unless it can be used; called by its pool before it is lent."""
        self.need_active()

    def need_active(self) -> None:
        """Raise `SandboxNotActive` if it is not."""
        if self.status not in ACTIVE:
            raise SandboxNotActive(f"Sandbox {self.id} is not active (status: {self.status.value})")

    async def renew(self) -> None:
        """Replace what it consists of, so that nothing of its past is left; same id."""
        await self.stop()
        await self.start()

    def get_info(self) -> SandboxInfo:
        """Describe it; environment variables by name only."""
        return SandboxInfo(
            id=self.id,
            status=self.status,
            type=self.sandbox_type.value,
            config=redacted(self.config),
            created_at=self.created_at,
            updated_at=self.updated_at,
            metadata={**self.facts, **self.metadata},
            available_tools=self.get_available_tools(),
        )

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop it and remove what is left."""
        await self.stop()
        await self.cleanup()
