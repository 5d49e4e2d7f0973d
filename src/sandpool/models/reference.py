"""Where a claimed sandbox is, and how long it lasts."""

from __future__ import annotations

from sandpool.models.value import Value


class SandboxReference(Value):
    """A sandbox of a pool, and how long it lasts."""

    id: str
    url: str | None = None
    """Where its first port answers once it is claimed; None: its pool has no ports, or there is no
    server to give it an address before."""
    expires_at: float | None = None
    """When it ends, in seconds since the epoch; None: it has no end of its own."""
    remaining: float | None = None
    """Seconds until then."""
    healthy: bool | None = None
    """Whether it was found healthy just now; None: nobody looked."""
    fault: str | None = None
    """What was wrong with it."""
