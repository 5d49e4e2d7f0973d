"""`python_executor`: run Python code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import anyio.to_thread

from sandpool.models import ExecResult, PythonExecutorConfig, ToolResult
from sandpool.service import Sandbox
from sandpool.tools.builtin import TIMEOUT, BuiltIn
from sandpool.tools.factory import register_tool
from sandpool.tools.modules import ModulePolicy

_WARM = PythonExecutorConfig().python_path


@register_tool("python_executor")
class PythonExecutor(BuiltIn[PythonExecutorConfig]):
    """Runs Python code in a fork of the sandbox's warm interpreter, one call after another anew."""

    default_description = "Run Python code and return what it prints"
    config_class = PythonExecutorConfig
    properties: ClassVar[Mapping[str, Any]] = {
        "code": {"type": "string", "description": "Python code to run"},
        "timeout": TIMEOUT,
    }
    required = ("code",)

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `PythonExecutorConfig` as settings."""
        super().__init__(**settings)
        allowed = self.config.allowed_modules
        self._policy = ModulePolicy(
            allowed=None if allowed is None else tuple(allowed),
            blocked=tuple(self.config.blocked_modules),
        )

    async def execute(
        self, sandbox_context: Sandbox, *, code: str, timeout: int | None = None
    ) -> ToolResult:
        """Run `code`; stdout is the output, stderr the error."""
        if not code.strip():
            return self.failure("No code provided")
        limit = self.time_limit(sandbox_context, timeout)
        if not self._policy.is_open:
            # In a thread: reading a quarter of a megabyte takes long enough to hold up the loop.
            refusal = await anyio.to_thread.run_sync(self._policy.refusal, code)
            if refusal is not None:
                return self.failure(refusal, refused=True)
            code = self._policy.guarded(code)
        return self.from_run(await self._run(sandbox_context, code, limit), limit)

    async def _run(self, sandbox: Sandbox, code: str, limit: int) -> ExecResult:
        most = self.config.max_output_size
        if self.config.python_path == _WARM:
            return await sandbox.run_code(code, timeout=limit, max_output=most)
        # By standard input, because an argument may have 128 KiB at most.
        return await sandbox.exec(
            [self.config.python_path, "-"], stdin=code, timeout=limit, max_output=most
        )
