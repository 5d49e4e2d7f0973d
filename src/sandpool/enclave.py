"""The names of ms-enclave, for programs that were written for it.

Change `from ms_enclave.sandbox.manager import LocalSandboxManager` and its like to
`from sandpool.enclave import ...`.  What is not here, sandpool has no counterpart of.
"""

from __future__ import annotations

from sandpool.client import HttpSandboxManager
from sandpool.manager.docker_sandbox import DockerNotebookSandbox, DockerSandbox
from sandpool.manager.local import LocalSandboxManager
from sandpool.manager.manager import SandboxManager
from sandpool.manager.manager_factory import SandboxManagerFactory, register_manager
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.sandbox_factory import SandboxFactory, register_sandbox
from sandpool.models import (
    CommandResult,
    DockerNotebookConfig,
    DockerSandboxConfig,
    ExecutionStatus,
    FileOperationConfig,
    HealthCheckResult,
    PythonExecutorConfig,
    SandboxConfig,
    SandboxInfo,
    SandboxManagerConfig,
    SandboxManagerType,
    SandboxStatus,
    SandboxType,
    ShellExecutorConfig,
    ToolConfig,
    ToolExecutionRequest,
    ToolResult,
    ToolType,
)
from sandpool.tools import (
    FileOperation,
    PythonExecutor,
    ShellExecutor,
    Tool,
    ToolFactory,
    register_tool,
)

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # Managers.
    "HttpSandboxManager",
    "LocalSandboxManager",
    "SandboxManager",
    "SandboxManagerFactory",
    "register_manager",
    # Sandboxes.
    "DockerNotebookSandbox",
    "DockerSandbox",
    "Sandbox",
    "SandboxFactory",
    "register_sandbox",
    # Enumerations.
    "ExecutionStatus",
    "SandboxManagerType",
    "SandboxStatus",
    "SandboxType",
    "ToolType",
    # Configurations.
    "DockerNotebookConfig",
    "DockerSandboxConfig",
    "FileOperationConfig",
    "PythonExecutorConfig",
    "SandboxConfig",
    "SandboxManagerConfig",
    "ShellExecutorConfig",
    "ToolConfig",
    # Results.
    "CommandResult",
    "HealthCheckResult",
    "SandboxInfo",
    "ToolExecutionRequest",
    "ToolResult",
    # Tools.
    "FileOperation",
    "PythonExecutor",
    "ShellExecutor",
    "Tool",
    "ToolFactory",
    "register_tool",
]
