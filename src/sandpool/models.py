"""Values that both ends of the wire share, and the enclave interface's models.

Our own values are frozen and refuse unknown fields, so that a misspelt limit never becomes no
limit.  The enclave models keep that interface's names, fields and defaults.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

Stream = Literal["stdout", "stderr"]
Recycle = Literal["fresh", "reset", "reuse"]

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""Names of pools and ids of sandboxes that a caller may choose."""

_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def utc_now() -> datetime:
    """Return the wall clock, for the time stamps of records."""
    return datetime.now(UTC)


def check_env(env: dict[str, str]) -> dict[str, str]:
    """Refuse variable names and values that no process can be given."""
    for name, value in env.items():
        if not _ENV_NAME.match(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
        if "\0" in value:
            raise ValueError(f"the value of {name} has a NUL byte in it")
    return env


def check_modules(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what cannot be the name of a module."""
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the name of a module")
    return names


def check_working_dir(path: str) -> str:
    """Refuse a directory that is not absolute and plain."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"working_dir must be an absolute path, not {path!r}")
    return path


class Value(BaseModel):
    """A frozen value without unknown fields.

    Inputs are left out of validation errors: they may hold secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


# --- results --------------------------------------------------------------------------------------


class ExecResult(Value):
    """What one run did.  A non-zero exit is a result, not an error."""

    exit_code: int
    """The program's own; 128 + n if signal n ended it, as a shell says it."""
    stdout: str = ""
    stderr: str = ""
    duration: float = 0.0
    """Seconds from the start of the program to its end."""
    timed_out: bool = False
    oom_killed: bool = False
    truncated: bool = False
    """Output went past its limit, and the rest was thrown away."""
    signal: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out and not self.oom_killed


class CellError(Value):
    """The exception that ended a cell."""

    name: str
    value: str
    traceback: str


class ContextResult(Value):
    """What one cell of a stateful interpreter did."""

    status: Literal["ok", "error", "timeout", "died"]
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    """`repr` of the last expression, as a notebook shows it."""
    displays: tuple[dict[str, str], ...] = ()
    """MIME bundles in order, the result's included: text as it is, binary types in base64."""
    error: CellError | None = None
    count: int = 0
    duration: float = 0.0
    truncated: bool = False


class DirEntry(Value):
    """One path inside a sandbox."""

    name: str
    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    """Bytes."""
    mode: int
    """Permission bits, such as 0o644."""
    mtime: float
    """Seconds since the epoch."""
    target: str | None = None
    """Where a symbolic link points."""


# --- pools ----------------------------------------------------------------------------------------

_Positive = Annotated[float, Field(gt=0)]


class HealthCheck(Value):
    """How to tell that a sandbox is healthy, beyond its guest answering."""

    kind: Literal["guest", "exec", "tcp"] = "guest"
    command: tuple[str, ...] = ()
    """For `exec`: the command line that must exit with 0."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """For `tcp`: the port that must accept a connection."""
    timeout: _Positive = 5.0
    interval: _Positive | None = None
    """Seconds between checks of idle sandboxes; None: only before READY and when asked."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "exec" and not self.command:
            raise ValueError("a health check of kind exec needs a command")
        if self.kind == "tcp" and self.port is None:
            raise ValueError("a health check of kind tcp needs a port")
        return self


class PoolSpec(Value):
    """The definition of a pool."""

    name: str = Field(pattern=NAME_PATTERN)
    # What to make.
    image: str = "host"
    backend: Literal["native"] = "native"
    cpus: float = Field(default=1.0, gt=0, le=1024)
    memory_mb: int = Field(default=512, ge=16, le=16_777_216)
    disk_mb: int = Field(default=256, ge=1, le=16_777_216)
    pids: int = Field(default=128, ge=4, le=1_000_000)
    preload: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    working_dir: str = "/sandbox"
    tools_config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    # How many.
    warm: int = Field(default=4, ge=0, le=100_000)
    max: int = Field(default=16, ge=1, le=100_000)
    builders: int = Field(default=4, ge=1, le=256)
    # How long, in seconds.
    lifetime: _Positive | None = None
    """From creation to the end, leased or not."""
    min_remaining: float = Field(default=0.0, ge=0)
    """What a claimed sandbox must have left of its lifetime."""
    max_age: _Positive | None = None
    """How old an idle sandbox may be when it is handed out."""
    timeout_secs: float = Field(default=0.0, ge=0)
    """How long a claimed sandbox lives from its hand-over; 0: no such limit."""
    claim_timeout: _Positive | None = None
    """How long a caller waits for a sandbox by default; None: without limit."""
    maintain_every: _Positive = 30.0
    # How checked, and what after.
    health_check: HealthCheck = HealthCheck()
    check_at_handover: bool = False
    recycle: Recycle = "fresh"

    _env = field_validator("env")(check_env)
    _preload = field_validator("preload")(check_modules)
    _working_dir = field_validator("working_dir")(check_working_dir)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warm > self.max:
            raise ValueError(f"warm ({self.warm}) is more than max ({self.max})")
        if self.lifetime is not None and self.min_remaining >= self.lifetime:
            raise ValueError("min_remaining must be less than lifetime")
        return self


class PoolInfo(Value):
    """A pool as it stands."""

    name: str
    pool_id: str
    spec: PoolSpec
    state: Literal["open", "degraded", "draining", "closed"]
    ready: int
    creating: int
    leased: int
    resetting: int
    waiting: int
    created: int
    destroyed: int
    create_failures: int
    hits: int
    """Claims served at once."""
    misses: int
    """Claims that had to wait."""
    last_error: str | None = None


# --- the enclave interface ------------------------------------------------------------------------


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

    _preload = field_validator("preload")(check_modules)


class DockerSandboxConfig(SandboxConfig):
    """A container's configuration, with the enclave interface's fields and defaults."""

    image: str = "python:3.11-slim"
    command: str | list[str] | None = None
    volumes: dict[str, dict[str, str]] = Field(default_factory=dict)
    ports: dict[str, int | str | tuple[str, int] | None] = Field(default_factory=dict)
    network: str | None = "bridge"
    extra_hosts: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    memory_limit: str = Field(default="4g", pattern=r"^\d+[kmgKMG]?$")
    cpu_limit: float = Field(default=2.0, gt=0)
    network_enabled: bool = True
    privileged: bool = False
    remove_on_exit: bool = True
    pull_progress: bool = False
    pull_progress_interval: float = 3.0
    docker_executor_workers: int = Field(default=8, gt=0)


class DockerNotebookConfig(DockerSandboxConfig):
    """A notebook container's configuration."""

    image: str = "jupyter-kernel-gateway"
    host: str = "127.0.0.1"
    port: int = Field(default=8888, ge=0, le=65_535)
    token: str | None = None


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
