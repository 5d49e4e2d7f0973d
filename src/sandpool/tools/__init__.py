"""What an agent can do in a sandbox: tools with a function schema, checked arguments and a policy.

Tools are written against `sandpool.service.Sandbox`, so they run alike on every backend and over
HTTP.  `docs/reference/tools.md` describes each of them.
"""

from __future__ import annotations

from sandpool.tools.factory import ToolFactory, register_tool
from sandpool.tools.file_operation import FileOperation
from sandpool.tools.multi_code_executor import MultiCodeExecutor
from sandpool.tools.notebook_executor import NotebookExecutor
from sandpool.tools.python_executor import PythonExecutor
from sandpool.tools.shell_executor import ShellExecutor
from sandpool.tools.tool import Tool

__all__ = [
    "FileOperation",
    "MultiCodeExecutor",
    "NotebookExecutor",
    "PythonExecutor",
    "ShellExecutor",
    "Tool",
    "ToolFactory",
    "register_tool",
]
