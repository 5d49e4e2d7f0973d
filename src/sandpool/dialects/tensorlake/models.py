"""What goes over the wire: requests, whose unknown fields are ignored, and answers.

Times are sent in milliseconds since the epoch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Status = Literal[
    "pending",
    "running",
    "snapshotting",
    "suspending",
    "suspended",
    "terminated",
    "timeout",
    "failed",
]
"""What a sandbox may be said to be.  A client cannot read an answer with any other word in it."""

PendingReason = Literal["scheduling", "waiting_for_container", "pool_at_capacity"]

MANAGEMENT_PORT = 9501
"""The port under which the sandbox's own interface is known; no program's."""

DEFAULT_MEMORY_MB = 512
DEFAULT_DISK_MB = 1024


def milliseconds(moment: datetime) -> int:
    """Return a moment as the milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)


class _Request(BaseModel):
    """A body that clients of several releases send.

    Inputs are left out of validation errors: they may hold secrets.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Gpu(_Request):
    """A demand for graphics processors, which no sandbox here has."""

    count: int = 1
    model: str = ""


class Resources(_Request):
    """What a sandbox may use at most; what is absent is the default, or stays as it is."""

    cpus: float | None = Field(default=None, gt=0)
    memory_mb: int | None = Field(default=None, gt=0)
    disk_mb: int | None = Field(default=None, gt=0)
    ephemeral_disk_mb: int | None = Field(default=None, gt=0)
    """`disk_mb` by the name that older clients give it."""
    gpus: list[Gpu] | None = None

    @property
    def disk(self) -> int | None:
        """The disk's size in MiB by whichever name."""
        return self.disk_mb if self.disk_mb is not None else self.ephemeral_disk_mb

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if None not in (self.disk_mb, self.ephemeral_disk_mb) and (
            self.disk_mb != self.ephemeral_disk_mb
        ):
            raise ValueError("disk_mb and ephemeral_disk_mb are the same thing, and differ")
        if self.gpus:
            raise ValueError("gpus: a sandbox here has none")
        return self


class Network(_Request):
    """What a sandbox may reach."""

    allow_internet_access: bool = True
    allow_out: tuple[str, ...] = ()
    deny_out: tuple[str, ...] = ()


class FileSystemMount(_Request):
    """A file system that a sandbox is to have at a path."""

    file_system_id: str
    mount_path: str


class PoolRequest(_Request):
    """The definition of a pool."""

    image: str = Field(min_length=1)
    resources: Resources = Resources()
    timeout_secs: int = Field(default=0, ge=0)
    entrypoint: tuple[str, ...] | None = None
    max_containers: int | None = Field(default=None, ge=1)
    warm_containers: int | None = Field(default=None, ge=0)
    network: Network | None = None
    secret_names: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_containers is not None and (self.warm_containers or 0) > self.max_containers:
            raise ValueError("warm_containers is more than max_containers")
        return self


class ClaimRequest(_Request):
    """How a claimed sandbox is to be set up; most claims come without."""

    file_systems: tuple[FileSystemMount, ...] = ()


def _check_ports(ports: tuple[int, ...]) -> tuple[int, ...]:
    for port in ports:
        if not 1 <= port <= 65_535 or port == MANAGEMENT_PORT:
            raise ValueError(f"{port} is not a port that can be exposed")
    return tuple(sorted(set(ports)))


Ports = Annotated[tuple[int, ...], AfterValidator(_check_ports)]


class SandboxRequest(_Request):
    """A sandbox to be made by itself, or with `pool_id` to be claimed."""

    image: str | None = Field(default=None, min_length=1)
    resources: Resources | None = None
    timeout_secs: int | None = Field(default=None, ge=0)
    entrypoint: tuple[str, ...] | None = None
    network: Network | None = None
    snapshot_id: str | None = None
    allow_unauthenticated_access: bool = False
    exposed_ports: Ports | None = None
    name: str | None = None
    file_systems: tuple[FileSystemMount, ...] = ()
    secret_names: tuple[str, ...] = ()
    wait: bool = True
    max_pending_secs: int | None = Field(default=None, ge=0)
    auto_resume: bool = True
    pool_id: str | None = None


class SandboxChange(_Request):
    """What is to change about a sandbox; what is absent stays."""

    name: str | None = None
    allow_unauthenticated_access: bool | None = None
    exposed_ports: Ports | None = None
    auto_resume: bool | None = None
    network: Network | None = None
    resources: Resources | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResourcesInfo(_Answer):
    """What a sandbox may use; the disk under both of its names, for clients of every release."""

    cpus: float
    memory_mb: int
    disk_mb: int
    ephemeral_disk_mb: int


class ContainerInfo(_Answer):
    """A member of a pool that is ready or claimed."""

    id: str
    state: Literal["Idle", "Running"]
    sandbox_id: str | None
    """The sandbox that it has become; None: it waits to become one."""
    executor_id: str


class PoolAnswer(_Answer):
    """A pool as it stands."""

    id: str
    namespace: str
    image: str
    resources: ResourcesInfo
    timeout_secs: int
    entrypoint: tuple[str, ...] | None
    max_containers: int | None
    warm_containers: int | None
    network_policy: Network | None
    secret_names: tuple[str, ...]
    containers: list[ContainerInfo] | None
    created_at: int
    updated_at: int
    state: str
    """`open`, or `degraded` while no container can be made: `last_error` says why."""
    last_error: str | None


class SandboxAnswer(_Answer):
    """A sandbox as it stands."""

    id: str
    namespace: str
    status: Status
    resources: ResourcesInfo
    image: str
    timeout_secs: int
    entrypoint: tuple[str, ...] | None
    network_policy: Network | None
    pool_id: str | None
    outcome: str | None = None
    termination_reason: str | None
    error_details: str | None
    pending_reason: PendingReason | None
    created_at: int
    terminated_at: int | None
    name: str | None
    allow_unauthenticated_access: bool
    exposed_ports: tuple[int, ...] | None
    ingress_endpoint: str | None = None
    sandbox_url: str | None
    routing_hint: str | None = None
    file_systems: list[Any] = Field(default_factory=list)
    auto_resume: bool
