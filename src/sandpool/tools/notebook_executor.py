"""`notebook_executor`: run cells that share one namespace, as a notebook does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import anyio

from sandpool.errors import ContextNotFound
from sandpool.models import ContextResult, ExecutionStatus, SandboxType, ToolConfig, ToolResult
from sandpool.service import Context, Sandbox
from sandpool.tools.builtin import TIMEOUT, BuiltIn
from sandpool.tools.factory import register_tool
from sandpool.tools.tool import timeout_text


@dataclass(slots=True)
class _Notebook:
    """The kernel of one sandbox handle."""

    # Held while a cell runs: cells run one after another, in the order of the calls.
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    context: Context | None = None
    is_restarted: bool = False
    """Whether an earlier kernel, and all that its cells had made, was lost."""


@register_tool("notebook_executor")
class NotebookExecutor(BuiltIn[ToolConfig]):
    """Runs cells in one stateful interpreter per sandbox handle.

    The interpreter starts with the first cell and ends with the sandbox, or with the lease.
    """

    default_description = "Run a notebook cell; variables are kept from cell to cell"
    sandbox_types = (SandboxType.DOCKER_NOTEBOOK,)
    properties: ClassVar[Mapping[str, Any]] = {
        "code": {"type": "string", "description": "Python code of the cell"},
        "timeout": TIMEOUT,
    }
    required = ("code",)

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `ToolConfig` as settings."""
        super().__init__(**settings)
        self._notebooks: WeakKeyDictionary[Sandbox, _Notebook] = WeakKeyDictionary()

    async def execute(
        self, sandbox_context: Sandbox, *, code: str, timeout: int | None = None
    ) -> ToolResult:
        """Run one cell; a lost interpreter is replaced and the result says so."""
        if not code.strip():
            return self.failure("No code provided")
        limit = self.time_limit(sandbox_context, timeout)
        notebook = self._notebooks.setdefault(sandbox_context, _Notebook())
        async with notebook.turn:
            cell = await _run(sandbox_context, notebook, code, limit)
            is_restarted, notebook.is_restarted = notebook.is_restarted, False
            if cell.status == "died":
                notebook.context = None
                notebook.is_restarted = True
        metadata: dict[str, Any] = {
            "execution_count": cell.count,
            "display_data": [dict(bundle) for bundle in cell.displays],
            "truncated": cell.truncated,
        }
        if is_restarted:
            metadata["kernel_restarted"] = True
        return self._result(cell, limit, metadata)

    def _result(self, cell: ContextResult, limit: int, metadata: dict[str, Any]) -> ToolResult:
        status, output, error = ExecutionStatus.ERROR, "", cell.stderr or None
        if cell.status == "ok":
            status = ExecutionStatus.SUCCESS
            output = cell.stdout
            if cell.result is not None:
                output += f"\nResult: {cell.result}"
        elif cell.status == "timeout":
            status = ExecutionStatus.TIMEOUT
            output = cell.stdout
            error = timeout_text(limit)
        elif cell.status == "died":
            error = (
                f"{cell.stderr}The kernel died; the next cell starts a new one, without variables"
            )
        elif cell.error is not None:
            error = cell.error.traceback or f"{cell.error.name}: {cell.error.value}"
        return ToolResult(
            tool_name=self.name,
            status=status,
            output=output,
            error=error,
            execution_time=cell.duration,
            metadata=metadata,
        )


async def _run(sandbox: Sandbox, notebook: _Notebook, code: str, limit: int) -> ContextResult:
    """Run a cell in the sandbox's kernel, in a new one if there is none."""
    if notebook.context is not None:
        try:
            return await notebook.context.run(code, timeout=limit)
        except ContextNotFound:
            # It did not outlive an earlier time-out, or the code of some run killed it.
            notebook.context = None
            notebook.is_restarted = True
    notebook.context = await sandbox.contexts.open()
    return await notebook.context.run(code, timeout=limit)
