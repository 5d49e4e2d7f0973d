"""`Choice`: what the sandboxes of a pool are made of, once that has been settled."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandpool.backends.base import BoxSpec
from sandpool.errors import ImageNotFound
from sandpool.models import SandboxConfig, SandboxType


@dataclass(frozen=True, slots=True)
class Choice:
    """What the sandboxes of a pool are made of."""

    kind: SandboxType
    config: SandboxConfig
    box: BoxSpec | None
    """None where no backend of ours makes them."""
    missing: ImageNotFound | None = field(default=None, compare=False)
    """Why it is not the native backend, where that was thought of first."""
