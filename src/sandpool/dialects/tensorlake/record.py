"""`Record`: one sandbox as this dialect's clients see it, from its request to long after its end.

It has an id of its own, because a client is given one while no container is there yet.

    pending ──► running ──► suspending ──► suspended ──► running
       ├──► failed                │             │
       └──────────┴───────────────┴─────────────┴──► terminated

    R1  The status is one that the wire knows, and changes along these edges only.
    R2  A record that is over stays as it is.
    R3  It has a container exactly from `running` to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from sandpool.dialects.tensorlake.models import (
    DEFAULT_DISK_MB,
    DEFAULT_MEMORY_MB,
    Network,
    PendingReason,
    ResourcesInfo,
    SandboxAnswer,
    Status,
    milliseconds,
)
from sandpool.dialects.tensorlake.process_table import ProcessTable
from sandpool.dialects.tensorlake.terminal import Terminals
from sandpool.errors import SandpoolError
from sandpool.service import Sandbox

_NEXT: Mapping[Status, frozenset[Status]] = {
    "pending": frozenset({"running", "failed", "terminated"}),
    "running": frozenset({"suspending", "terminated"}),
    "suspending": frozenset({"suspended", "running", "terminated"}),
    "suspended": frozenset({"running", "terminated"}),
    "terminated": frozenset(),
    "failed": frozenset(),
}
"""Invariant R1; `snapshotting` and `timeout` are never the status of a sandbox here."""


class IllegalMove(AssertionError):
    """The dialect has a bug: a sandbox was about to do what its status forbids.  Never caught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a sandbox is made from, its pool's or its own."""

    image: str
    resources: ResourcesInfo
    timeout_secs: int = 0
    entrypoint: tuple[str, ...] | None = None
    network: Network | None = None
    secret_names: tuple[str, ...] = ()


@dataclass(slots=True, eq=False, kw_only=True)
class Record:
    """One sandbox."""

    id: str
    blueprint: Blueprint
    created_at: datetime
    pool_id: str | None = None
    name: str | None = None
    network: Network | None = None
    """What its client was told to be in force; its blueprint's, until changed."""
    allow_unauthenticated_access: bool = False
    exposed_ports: tuple[int, ...] | None = None
    auto_resume: bool = True
    status: Status = "pending"
    termination_reason: str | None = None
    error_details: str | None = None
    failure: SandpoolError | None = None
    """What it failed with, where that was raised on purpose."""
    terminated_at: datetime | None = None
    ended_at: float | None = None
    """When it was over, in monotonic seconds."""
    expires_at: float | None = None
    """When its time is up, in monotonic seconds; None: never, or not while it is not running."""
    sandbox: Sandbox | None = None
    """What calls go to; Invariant R3."""
    is_ending: bool = False
    """Whether its container is being destroyed; nothing is run in it any more."""
    obtaining: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Cancelled, it is no longer waited for a container."""
    processes: ProcessTable = field(default_factory=ProcessTable)
    terminals: Terminals = field(default_factory=Terminals)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_over(self) -> bool:
        """Whether it will never run again."""
        return self.status in ("terminated", "failed")

    @property
    def container(self) -> str | None:
        """The id of the container that it has."""
        return None if self.sandbox is None else self.sandbox.id

    def move(self, to: Status) -> None:
        """Take the next status; whoever waits for a change looks again."""
        if to not in _NEXT[self.status]:  # Invariants R1 and R2
            raise IllegalMove(f"sandbox {self.id} cannot go from {self.status} to {to}")
        self.status = to
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait_change(self) -> None:
        """Return when its status has changed."""
        await self._changed.wait()

    def answer(
        self, namespace: str, *, url: str, pending_reason: PendingReason | None
    ) -> SandboxAnswer:
        """Describe it; `url` is where its own interface is reached."""
        blueprint = self.blueprint
        over = None if self.terminated_at is None else milliseconds(self.terminated_at)
        return SandboxAnswer(
            id=self.id,
            namespace=namespace,
            status=self.status,
            resources=blueprint.resources,
            image=blueprint.image,
            timeout_secs=blueprint.timeout_secs,
            entrypoint=blueprint.entrypoint,
            network_policy=self.network,
            pool_id=self.pool_id,
            termination_reason=self.termination_reason,
            error_details=self.error_details,
            pending_reason=pending_reason if self.status == "pending" else None,
            created_at=milliseconds(self.created_at),
            terminated_at=over,
            name=self.name,
            allow_unauthenticated_access=self.allow_unauthenticated_access,
            exposed_ports=self.exposed_ports,
            sandbox_url=None if self.sandbox is None else url,
            auto_resume=self.auto_resume,
        )


def resources_info(
    *, cpus: float = 1.0, memory_mb: int = DEFAULT_MEMORY_MB, disk_mb: int = DEFAULT_DISK_MB
) -> ResourcesInfo:
    """Return resources with the disk under both of its names."""
    return ResourcesInfo(cpus=cpus, memory_mb=memory_mb, disk_mb=disk_mb, ephemeral_disk_mb=disk_mb)
