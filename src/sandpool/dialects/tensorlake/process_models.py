"""What goes over the wire about processes, files and the sandbox's own state."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sandpool.models import check_env

ManagedStatus = Literal["starting", "running", "backing_off", "stopped"]
HealthStatus = Literal["disabled", "starting", "healthy", "unhealthy"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RestartPolicy(_Request):
    """Whether, and how soon, a process that has ended is started again."""

    policy: Literal["never", "on_failure", "always"] = "on_failure"
    max_restarts: int | None = Field(default=None, ge=0)
    initial_backoff_ms: int = Field(default=500, ge=1)
    max_backoff_ms: int = Field(default=30_000, ge=1)


class HealthCheck(_Request):
    """How to tell that a process does its work, beyond its being there."""

    type: Literal["http", "tcp"]
    port: int = Field(ge=1, le=65_535)
    path: str | None = None
    initial_delay_ms: int = Field(default=5_000, ge=0)
    interval_ms: int = Field(default=1_000, ge=10)
    timeout_ms: int = Field(default=500, ge=1)
    failure_threshold: int = Field(default=3, ge=1)


def _refuse_user(user: object) -> None:
    if user is not None:
        raise ValueError("a sandbox here has one user, and every process is that user's")


class RunRequest(_Request):
    """A command to run to its end."""

    command: str = Field(min_length=1, max_length=131_072)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    working_dir: str | None = None
    timeout: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds until its whole tree is killed."""
    user: Annotated[None, BeforeValidator(_refuse_user)] = None

    _env = field_validator("env")(check_env)

    @field_validator("args", mode="before")
    @classmethod
    def _no_args(cls, args: object) -> object:
        return () if args is None else args

    @field_validator("env", mode="before")
    @classmethod
    def _no_env(cls, env: object) -> object:
        return {} if env is None else env


class StartRequest(RunRequest):
    """A command to start, and to go on without its caller."""

    stdin_mode: Literal["closed", "pipe"] = "closed"
    stdout_mode: Literal["capture", "discard"] = "capture"
    stderr_mode: Literal["capture", "discard"] = "capture"
    name: str | None = None
    restart: RestartPolicy | None = None
    health_check: HealthCheck | None = None

    @field_validator("name")
    @classmethod
    def _addressable(cls, name: str | None) -> str | None:
        if name is not None and (not name or "/" in name or name.isdigit() or len(name) > 128):
            raise ValueError("a process's name is not empty, not all digits, and has no slash")
        return name

    @property
    def is_managed(self) -> bool:
        """Whether somebody is to look after it."""
        return any(each is not None for each in (self.name, self.restart, self.health_check))


class TerminalRequest(RunRequest):
    """A command to start on a terminal of its own."""

    rows: int = Field(default=24, ge=1, le=65_535)
    cols: int = Field(default=80, ge=1, le=65_535)


class SignalRequest(_Request):
    """A signal for a process."""

    signal: int = Field(ge=1, le=64)


class LastExit(_Answer):
    """How the last run of a managed process ended."""

    exit_code: int | None
    signal: int | None
    oom_killed: bool
    ended_at: int


class ManagedInfo(_Answer):
    """What looks after a process, and what it has seen."""

    id: str
    name: str | None
    status: ManagedStatus
    restart_count: int
    restart: RestartPolicy
    health_check: HealthCheck | None
    health_status: HealthStatus
    consecutive_health_failures: int
    last_exit: LastExit | None
    last_error: str | None
    next_restart_at: int | None


class ProcessInfo(_Answer):
    """A process as it stands."""

    handle: int
    pid: int
    status: Literal["running", "exited", "signaled", "oom_killed"]
    exit_code: int | None
    signal: int | None
    stdin_writable: bool
    command: str
    args: tuple[str, ...]
    started_at: int
    ended_at: int | None
    managed: ManagedInfo | None
