"""What `SandboxClient` tells about pools and sandboxes, in the words of its interface.

Pure conversions from the manager's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from sandpool.models import PoolInfo, SandboxInfo, SandboxStatus, Value

Status = Literal["pending", "running", "terminated", "failed"]

NO_CEILING: Final = 100_000
"""What a pool without `max_containers` has for its ceiling: the most that a pool can have."""

_STATUSES: Mapping[SandboxStatus, Status] = {
    SandboxStatus.INITIALIZING: "pending",
    SandboxStatus.RUNNING: "running",
    SandboxStatus.IDLE: "running",
    SandboxStatus.BUSY: "running",
    SandboxStatus.STOPPING: "terminated",
    SandboxStatus.STOPPED: "terminated",
    SandboxStatus.ERROR: "failed",
}


class Resources(Value):
    """What one sandbox may use at most."""

    cpus: float = 1.0
    memory_mb: int = 512
    """MiB."""
    ephemeral_disk_mb: int = 1024
    """MiB."""

    @property
    def disk_mb(self) -> int:
        """`ephemeral_disk_mb` by its other name."""
        return self.ephemeral_disk_mb


class PoolRecord(Value):
    """A pool as it stood when it was asked for."""

    pool_id: str
    image: str
    resources: Resources
    warm_containers: int
    """How many sandboxes are kept ready."""
    max_containers: int | None
    """How many there are at most, ready and active together; None: no ceiling of its own."""
    timeout_secs: float
    """How long a sandbox lives from its hand-over, in seconds; 0: no such limit."""
    state: Literal["open", "degraded", "draining", "closed"]
    """`degraded`: no sandboxes can be made at the moment, and `last_error` says why."""
    ready: int
    """Sandboxes that wait to be created from."""
    starting: int
    """Sandboxes that are on their way to be ready."""
    active: int
    """Sandboxes that were created and have not ended."""
    waiting: int
    """Calls of `create` that wait for a sandbox."""
    last_error: str | None

    @property
    def id(self) -> str:
        """`pool_id` by its other name."""
        return self.pool_id

    @property
    def cpus(self) -> float:
        """Processors of each sandbox."""
        return self.resources.cpus

    @property
    def memory_mb(self) -> int:
        """Memory of each sandbox, in MiB."""
        return self.resources.memory_mb

    @property
    def ephemeral_disk_mb(self) -> int:
        """Disk of each sandbox, in MiB."""
        return self.resources.ephemeral_disk_mb


class SandboxRecord(Value):
    """A sandbox as it stood when it was asked for."""

    sandbox_id: str
    status: Status
    pool_id: str | None
    """The pool that it was created from, if it was."""
    image: str
    resources: Resources
    created_at: datetime

    @property
    def id(self) -> str:
        """`sandbox_id` by its other name."""
        return self.sandbox_id


def status_word(status: SandboxStatus) -> Status:
    """Return the interface's word for a status."""
    return _STATUSES[status]


def pool_record(info: PoolInfo) -> PoolRecord:
    """Return what the client tells about a pool of its manager."""
    spec = info.spec
    return PoolRecord(
        pool_id=info.name,
        image=spec.image,
        resources=Resources(
            cpus=spec.cpus, memory_mb=spec.memory_mb, ephemeral_disk_mb=spec.disk_mb
        ),
        warm_containers=spec.warm,
        max_containers=None if spec.max == NO_CEILING else spec.max,
        timeout_secs=spec.timeout_secs,
        state=info.state,
        ready=info.ready,
        starting=info.creating,
        active=info.leased,
        waiting=info.waiting,
        last_error=info.last_error,
    )


def sandbox_record(info: SandboxInfo, pool_id: str | None) -> SandboxRecord:
    """Return what the client tells about a sandbox of its manager."""
    limits = info.config["resource_limits"]
    return SandboxRecord(
        sandbox_id=info.id,
        status=status_word(info.status),
        pool_id=pool_id,
        image=info.config["image"],
        resources=Resources(
            cpus=limits["cpus"],
            memory_mb=limits["memory_mb"],
            ephemeral_disk_mb=limits["disk_mb"],
        ),
        created_at=info.created_at,
    )
