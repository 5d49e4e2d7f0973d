"""What one sandbox may use, where that is not what its pool says."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sandpool.models.value import Value


class LimitChange(Value):
    """What one tenant's sandbox may use at most; None: what its pool's definition says."""

    memory_mb: int | None = Field(default=None, ge=16, le=16_777_216)
    """Memory of all its processes together, in MiB, without swap."""
    cpus: float | None = Field(default=None, gt=0, le=1024)
    """Processor time per second of wall time, and the share of it where all want more."""
    pids: int | None = Field(default=None, ge=4, le=1_000_000)
    """Processes and threads at one time, the guest included."""
    disk_mb: int | None = Field(default=None, ge=1, le=16_777_216)
    """Bytes in all writable places together, in MiB."""
    inodes: int | None = Field(default=None, ge=64, le=1_000_000_000)
    """Files and directories in all writable places together."""
    open_files: int | None = Field(default=None, ge=16, le=1_048_576)
    """Descriptors of each process that is started from then on."""

    def given(self) -> dict[str, Any]:
        """Return the limits that it names."""
        values: dict[str, Any] = self.model_dump(exclude_none=True)
        return values
