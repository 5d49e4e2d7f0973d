"""`shell_executor`: run a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sandpool.models import ShellExecutorConfig, ToolResult
from sandpool.service import Sandbox
from sandpool.tools.builtin import TIMEOUT, BuiltIn
from sandpool.tools.commands import CommandPolicy
from sandpool.tools.factory import register_tool


@register_tool("shell_executor")
class ShellExecutor(BuiltIn[ShellExecutorConfig]):
    """Runs a command: a string by the configured shell, a list of strings without one."""

    default_description = "Run a shell command and return what it prints"
    config_class = ShellExecutorConfig
    properties: ClassVar[Mapping[str, Any]] = {
        "command": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "A command line for the shell, or a program and its arguments",
        },
        "timeout": TIMEOUT,
    }
    required = ("command",)

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `ShellExecutorConfig` as settings."""
        super().__init__(**settings)
        allowed = self.config.allowed_commands
        self._policy = CommandPolicy(
            allowed=None if allowed is None else tuple(allowed),
            blocked=tuple(self.config.blocked_commands),
        )

    async def execute(
        self, sandbox_context: Sandbox, *, command: str | Sequence[str], timeout: int | None = None
    ) -> ToolResult:
        """Run `command`; stdout is the output, stderr the error."""
        is_empty = not command.strip() if isinstance(command, str) else not any(command)
        if is_empty:
            return self.failure("No command provided")
        limit = self.time_limit(sandbox_context, timeout)
        refusal = self._policy.refusal(command)
        if refusal is not None:
            return self.failure(refusal, refused=True)
        line = [self.config.shell_path, "-c", command] if isinstance(command, str) else command
        run = await sandbox_context.exec(
            line, timeout=limit, max_output=self.config.max_output_size
        )
        return self.from_run(run, limit, failure=f"Command failed with exit code {run.exit_code}")
