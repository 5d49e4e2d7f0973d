"""Warm pools of isolated sandboxes.

    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="rl", preload=["numpy"], warm=8, max=64))
        async with manager.lease("rl") as sandbox:
            result = await sandbox.run_code("import numpy; print(numpy.arange(3))")

Names are loaded when they are first used, so that importing this package loads nothing else: no
validation library, no web framework, no container client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandpool.client import HttpSandboxManager as HttpSandboxManager
    from sandpool.client import SandboxClient as SandboxClient
    from sandpool.clock import Clock as Clock
    from sandpool.errors import AcquireTimeout as AcquireTimeout
    from sandpool.errors import BackendUnavailable as BackendUnavailable
    from sandpool.errors import CreateFailed as CreateFailed
    from sandpool.errors import InvalidSpec as InvalidSpec
    from sandpool.errors import LeaseOver as LeaseOver
    from sandpool.errors import NoCapacity as NoCapacity
    from sandpool.errors import PoolClosed as PoolClosed
    from sandpool.errors import PoolDegraded as PoolDegraded
    from sandpool.errors import SandboxDied as SandboxDied
    from sandpool.errors import SandpoolError as SandpoolError
    from sandpool.manager.local import LocalSandboxManager as LocalSandboxManager
    from sandpool.manager.manager_factory import SandboxManagerFactory as SandboxManagerFactory
    from sandpool.manager.sandbox_factory import SandboxFactory as SandboxFactory
    from sandpool.models import ContextResult as ContextResult
    from sandpool.models import Destination as Destination
    from sandpool.models import DirEntry as DirEntry
    from sandpool.models import DockerNotebookConfig as DockerNotebookConfig
    from sandpool.models import DockerSandboxConfig as DockerSandboxConfig
    from sandpool.models import ExecResult as ExecResult
    from sandpool.models import ExecutionStatus as ExecutionStatus
    from sandpool.models import HealthCheck as HealthCheck
    from sandpool.models import NativeSandboxConfig as NativeSandboxConfig
    from sandpool.models import Network as Network
    from sandpool.models import PoolInfo as PoolInfo
    from sandpool.models import PoolSpec as PoolSpec
    from sandpool.models import SandboxConfig as SandboxConfig
    from sandpool.models import SandboxInfo as SandboxInfo
    from sandpool.models import SandboxManagerConfig as SandboxManagerConfig
    from sandpool.models import SandboxStatus as SandboxStatus
    from sandpool.models import SandboxType as SandboxType
    from sandpool.models import ToolResult as ToolResult
    from sandpool.service import Sandbox as Sandbox
    from sandpool.service import SandboxService as SandboxService
    from sandpool.tools import Tool as Tool
    from sandpool.tools import register_tool as register_tool

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # Managers, and the interface that they share.
    "HttpSandboxManager",
    "LocalSandboxManager",
    "SandboxClient",
    "SandboxManagerConfig",
    "SandboxManagerFactory",
    "SandboxService",
    # Sandboxes, and what they are made from.
    "DockerNotebookConfig",
    "DockerSandboxConfig",
    "NativeSandboxConfig",
    "Sandbox",
    "SandboxConfig",
    "SandboxFactory",
    "SandboxInfo",
    "SandboxStatus",
    "SandboxType",
    # Pools.
    "Destination",
    "HealthCheck",
    "Network",
    "PoolInfo",
    "PoolSpec",
    # Results.
    "ContextResult",
    "DirEntry",
    "ExecResult",
    "ExecutionStatus",
    "ToolResult",
    # Tools of your own.
    "Tool",
    "register_tool",
    # What to catch; `sandpool.errors` has all of them.
    "AcquireTimeout",
    "BackendUnavailable",
    "CreateFailed",
    "InvalidSpec",
    "LeaseOver",
    "NoCapacity",
    "PoolClosed",
    "PoolDegraded",
    "SandboxDied",
    "SandpoolError",
    # Time, for tests.
    "Clock",
]

_NAMES = {
    "sandpool.client": ["HttpSandboxManager", "SandboxClient"],
    "sandpool.clock": ["Clock"],
    "sandpool.errors": [
        "AcquireTimeout",
        "BackendUnavailable",
        "CreateFailed",
        "InvalidSpec",
        "LeaseOver",
        "NoCapacity",
        "PoolClosed",
        "PoolDegraded",
        "SandboxDied",
        "SandpoolError",
    ],
    "sandpool.manager.local": ["LocalSandboxManager"],
    "sandpool.manager.manager_factory": ["SandboxManagerFactory"],
    "sandpool.manager.sandbox_factory": ["SandboxFactory"],
    "sandpool.models": [
        "ContextResult",
        "Destination",
        "DirEntry",
        "DockerNotebookConfig",
        "DockerSandboxConfig",
        "ExecResult",
        "ExecutionStatus",
        "HealthCheck",
        "NativeSandboxConfig",
        "Network",
        "PoolInfo",
        "PoolSpec",
        "SandboxConfig",
        "SandboxInfo",
        "SandboxManagerConfig",
        "SandboxStatus",
        "SandboxType",
        "ToolResult",
    ],
    "sandpool.service": ["Sandbox", "SandboxService"],
    "sandpool.tools": ["Tool", "register_tool"],
}

_WHERE = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'sandpool' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
