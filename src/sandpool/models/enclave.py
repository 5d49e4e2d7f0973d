"""The models of the enclave interface, with its names, fields and defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from sandpool.models.checks import check_env, check_modules, check_working_dir
from sandpool.models.network import Network
from sandpool.models.value import Value, utc_now


class SandboxStatus(StrEnum):
    """The life of a sandbox, as callers see it."""

    INITIALIZING = "initializing"
    RUNNING = "running"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


class SandboxType(StrEnum):
    """What a sandbox is made of."""

    NATIVE = "native"
    DOCKER = "docker"
    DOCKER_NOTEBOOK = "docker_notebook"
    DUMMY = "dummy"

    @classmethod
    def get_compatible_types(cls, sandbox_type: SandboxType) -> set[SandboxType]:
        """Return the types whose tools a sandbox of this type can run, its own included."""
        if sandbox_type is cls.NATIVE:
            return {cls.NATIVE, cls.DOCKER, cls.DOCKER_NOTEBOOK}
        if sandbox_type is cls.DOCKER_NOTEBOOK:
            return {cls.DOCKER_NOTEBOOK, cls.DOCKER}
        return {sandbox_type}

    @classmethod
    def is_compatible(cls, sandbox_type: SandboxType, required_type: SandboxType) -> bool:
        """Whether a sandbox of `sandbox_type` can run a tool that needs `required_type`."""
        return required_type in cls.get_compatible_types(sandbox_type)


class SandboxManagerType(StrEnum):
    """Where a manager's sandboxes live."""

    LOCAL = "local"
    HTTP = "http"


class ToolType(StrEnum):
    """What a tool is, in the enclave interface."""

    SANDBOX = "sandbox"
    FUNCTION = "function"
    EXTERNAL = "external"


class ExecutionStatus(StrEnum):
    """How an execution ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class _EnclaveModel(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ToolConfig(_EnclaveModel):
    """Settings that every tool has."""

    enabled: bool = True
    timeout: int = Field(default=30, gt=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    restrictions: dict[str, Any] = Field(default_factory=dict)


class PythonExecutorConfig(ToolConfig):
    """Settings of `python_executor`."""

    python_path: str = "python3"
    allowed_modules: list[str] | None = None
    blocked_modules: list[str] = Field(default_factory=list)
    max_output_size: int = Field(default=1_048_576, gt=0)


class ShellExecutorConfig(ToolConfig):
    """Settings of `shell_executor`."""

    shell_path: str = "/bin/bash"
    allowed_commands: list[str] | None = None
    blocked_commands: list[str] = Field(default_factory=list)
    max_output_size: int = Field(default=1_048_576, gt=0)


class FileOperationConfig(ToolConfig):
    """Settings of `file_operation`."""

    allowed_paths: list[str] | None = None
    blocked_paths: list[str] = Field(default_factory=list)
    max_file_size: int = Field(default=10_485_760, gt=0)
    allowed_extensions: list[str] | None = None


class SandboxConfig(_EnclaveModel):
    """What a sandbox is made from; the configuration class of `SandboxType.NATIVE`.

    `image` and `preload` are sandpool's own; the other fields and their defaults are the enclave
    interface's.
    """

    timeout: int = Field(default=30, gt=0)
    """Seconds that one tool call may take, where neither the call nor the tool's settings say."""
    tools_config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    working_dir: str = "/sandbox"
    env_vars: dict[str, str] = Field(default_factory=dict, repr=False)
    resource_limits: dict[str, Any] = Field(default_factory=dict)
    """Any of `memory` ("512m" or bytes), `memory_mb`, `cpu` or `cpus`, `pids`, `disk_mb`."""

    _env = field_validator("env_vars")(check_env)
    _working_dir = field_validator("working_dir")(check_working_dir)

    @field_validator("tools_config", mode="before")
    @classmethod
    def _names_to_settings(cls, value: object) -> object:
        if isinstance(value, list | tuple | set):
            return {name: dict[str, Any]() for name in cast("Collection[object]", value)}
        if isinstance(value, dict):
            items = cast("dict[object, object]", value).items()
            return {name: dict[str, Any]() if own is None else own for name, own in items}
        return value


class NativeSandboxConfig(SandboxConfig):
    """A `SandboxConfig` with what only sandpool's native backend offers."""

    image: str = "host"
    preload: tuple[str, ...] = ()
    network: Network | None = None
    """What it may connect to; None: nothing."""

    _preload = field_validator("preload")(check_modules)


class DockerSandboxConfig(SandboxConfig):
    """A container's configuration, with the enclave interface's fields and defaults.

    `preload` is sandpool's own.
    """

    image: str = "python:3.11-slim"
    preload: tuple[str, ...] = ()
    command: str | list[str] | None = None
    """Runs in the background from the sandbox's start; a string by a shell."""
    volumes: dict[str, dict[str, str]] = Field(default_factory=dict)
    """`{host path: {"bind": path inside, "mode": "ro" or "rw"}}`; by default "ro".  Only below the
    manager's `containers.volume_roots`."""
    ports: dict[str, int | str | tuple[str, int] | None] = Field(default_factory=dict)
    """Where on the host a port such as "8080/tcp" is reached: a port of 127.0.0.1, an (address,
    port), or None for a free one.  Needs a network."""
    network: str | None = "bridge"
    """The engine's network to join, where one is asked for."""
    extra_hosts: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    memory_limit: str = Field(default="4g", pattern=r"^\d+[kmgKMG]?$")
    cpu_limit: float = Field(default=2.0, gt=0)
    network_enabled: bool = True
    """Left out, as `network`, it asks for nothing: there is then no network but loopback."""
    privileged: bool = False
    """Only where the manager's `containers.privileged` allows it."""
    remove_on_exit: bool = True
    pull_progress: bool = False
    """Whether the progress of a pull is logged, every `pull_progress_interval` seconds."""
    pull_progress_interval: float = Field(default=3.0, gt=0)
    docker_executor_workers: int = Field(default=8, gt=0)
    """Accepted for the interface's sake: there are no worker threads."""

    _preload = field_validator("preload")(check_modules)


class DockerNotebookConfig(DockerSandboxConfig):
    """A notebook container's configuration.

    Its kernel is an interpreter of the image itself, reached over the sandbox's own connection: no
    port is opened, so `host`, `port` and `token` are accepted for the interface's sake only.
    """

    image: str = "jupyter-kernel-gateway"
    host: str = "127.0.0.1"
    port: int = Field(default=8888, ge=0, le=65_535)
    token: str | None = None


class ContainerPolicy(Value):
    """What the containers of a manager may be given; whoever runs the manager decides."""

    privileged: bool = False
    """Whether a container may be privileged, which is as good as root on the host."""
    host_network: bool = False
    """Whether a container may have the host's network."""
    volume_roots: tuple[str, ...] = ()
    """Directories of the host; only what lies below one of them may be a volume."""


class SandboxManagerConfig(_EnclaveModel):
    """Settings of a manager."""

    base_url: str | None = None
    timeout: float | None = None
    """Seconds that a pool call waits for a sandbox by default; None: without limit."""
    api_key: str | None = Field(default=None, repr=False)
    cleanup_interval: int | None = Field(default=None, gt=0)
    """Seconds between background sweeps; None: 300."""
    max_running_age: float = Field(default=48 * 3600.0, gt=0)
    """Seconds after which the sweep removes a running sandbox."""
    max_stopped_age: float = Field(default=3600.0, gt=0)
    """Seconds after which the sweep removes a stopped or failed sandbox."""
    max_sandboxes: int = Field(default=10_000, gt=0)
    """Sandboxes of this manager at one time, pools included; past it: `NoCapacity`."""
    containers: ContainerPolicy = ContainerPolicy()
    """What containers may be given beyond what is safe."""
    egress: bool = True
    """Whether native sandboxes may be given a network (`PoolSpec.network`); without it: refused."""
    pool_size: int = Field(default=0, ge=0)
    sandbox_config: SerializeAsAny[SandboxConfig] | dict[str, Any] | None = Field(
        default=None, repr=False
    )
    """What pools are made from by default; a dict stays whole until the type is known."""

    @field_validator("sandbox_config", mode="wrap")
    @classmethod
    def _whole(cls, value: object, validate: ValidatorFunctionWrapHandler) -> object:
        # A dict is not tried as a SandboxConfig: the fields of its subclasses would be lost.
        if isinstance(value, Mapping):
            return dict(cast("Mapping[str, object]", value))
        return validate(value)


class SandboxInfo(_EnclaveModel):
    """A sandbox as it stands."""

    id: str
    status: SandboxStatus
    type: str
    config: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] = Field(default_factory=dict)
    available_tools: dict[str, Any] = Field(default_factory=dict)


class _ExecutionRecord(_EnclaveModel):
    status: ExecutionStatus
    execution_time: float | None = None
    timestamp: datetime = Field(default_factory=utc_now)


class ToolResult(_ExecutionRecord):
    """What a tool call gave."""

    tool_name: str
    output: Any = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None

    @property
    def success(self) -> bool:
        """Whether it ended well."""
        return self.status is ExecutionStatus.SUCCESS


class CommandResult(_ExecutionRecord):
    """What a command gave."""

    command: str | list[str]
    exit_code: int
    stdout: str | None = None
    stderr: str | None = None


class HealthCheckResult(_EnclaveModel):
    """A server's health."""

    healthy: bool
    version: str
    uptime: float
    """Seconds."""
    active_sandboxes: int
    system_info: dict[str, Any] = Field(default_factory=dict)


class ToolExecutionRequest(_EnclaveModel):
    """A tool call by sandbox id."""

    sandbox_id: str
    tool_name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    timeout: int | None = None
