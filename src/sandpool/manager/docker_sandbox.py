"""Containers that are made and used without a manager, under the enclave interface's names."""

from __future__ import annotations

from sandpool.manager.backends import docker_backend
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import SandboxConfig, SandboxType


class DockerSandbox(LocalSandbox):
    """One container in this process's care, of the engine that DOCKER_HOST names."""

    def __init__(self, config: SandboxConfig, sandbox_id: str | None = None) -> None:
        """Describe it; nothing runs before `start`."""
        super().__init__(
            config, sandbox_id, sandbox_type=SandboxType.DOCKER, make_backend=docker_backend
        )


class DockerNotebookSandbox(LocalSandbox):
    """One container for `notebook_executor`, whose variables are kept from cell to cell."""

    def __init__(self, config: SandboxConfig, sandbox_id: str | None = None) -> None:
        """Describe it; nothing runs before `start`."""
        super().__init__(
            config,
            sandbox_id,
            sandbox_type=SandboxType.DOCKER_NOTEBOOK,
            make_backend=docker_backend,
        )
