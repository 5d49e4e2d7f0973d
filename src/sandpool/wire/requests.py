"""The bodies of the calls that make, claim and lend: what a client sends, checked by the server."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sandpool.models import NAME_PATTERN, LimitChange, SandboxInfo, SandboxType, Value

_Seconds = Field(default=None, gt=0, le=31_536_000)


class NewSandbox(Value):
    """A sandbox to be made by itself."""

    type: SandboxType = SandboxType.NATIVE
    id: str | None = Field(default=None, pattern=NAME_PATTERN)
    config: dict[str, Any] = Field(default_factory=dict, repr=False)
    """The fields of the type's configuration class."""


class ClaimRequest(Value):
    """A sandbox to be taken from a pool for good."""

    timeout: float | None = Field(default=None, ge=0, le=86_400)
    """Seconds to wait; None: as long as the pool's definition says."""
    min_remaining: float | None = Field(default=None, ge=0)
    """Seconds that it must have left of its lifetime."""
    check_health: bool | None = None
    """Whether to look at it first; None: as the pool's definition says."""
    env: dict[str, str | None] = Field(default_factory=dict, repr=False)
    cwd: str | None = None
    lifetime: float | None = _Seconds
    limits: LimitChange | None = None
    """This tenant's, where they are not to be the pool's."""


class LeaseRequest(Value):
    """A sandbox to be borrowed from a pool."""

    timeout: float | None = Field(default=None, ge=0, le=86_400)
    min_remaining: float | None = Field(default=None, ge=0)
    env: dict[str, str | None] = Field(default_factory=dict, repr=False)
    cwd: str | None = None
    limits: LimitChange | None = None
    keep_alive: float = Field(default=60.0, ge=1, le=3600)
    """Seconds without a call after which the lease ends, because its holder must be gone."""


class Claimed(Value):
    """A sandbox that is the caller's now."""

    id: str
    """The sandbox's."""
    url: str | None
    """Where the first of its pool's ports is, for any HTTP or WebSocket client; it carries a token,
    and so is a secret.  None: its pool has no ports."""
    expires_at: float | None
    """When it ends by itself, in seconds since the epoch; None: never."""
    sandbox: SandboxInfo
    pool: str
    remaining: float | None
    """Seconds until it ends by itself; None: never."""


class Leased(Value):
    """A sandbox that is lent to the caller, until the lease is given back or not kept alive."""

    lease_id: str
    sandbox: SandboxInfo
    pool: str
    remaining: float | None
    keep_alive: float


class LeaseState(Value):
    """A lease as it stands."""

    lease_id: str
    sandbox_id: str
    pool: str
    epoch: int
    """Grows with every lease of its pool."""
    remaining: float | None
    """Seconds until it ends if no call keeps it alive."""
    keep_alive: float


class PortAddress(Value):
    """How a port of a sandbox is called from outside."""

    url: str
    """For any HTTP or WebSocket client; it carries the token, and so is a secret."""
    port: int
    token: str = Field(repr=False)
    """What opens the port, for the header `X-Sandpool-Token`."""


class Extension(Value):
    """More time for a claimed sandbox."""

    lifetime: float = Field(gt=0, le=31_536_000)
    """Seconds from now."""


class SandboxPage(Value):
    """Some of the sandboxes."""

    items: list[SandboxInfo]
    next_cursor: str | None = None
    """What to give as `cursor` for the next page; None: this is the last."""


class InitializePool(Value):
    """The pool behind `execute_tool_in_pool`."""

    pool_size: int | None = Field(default=None, ge=0, le=100_000)
    type: SandboxType | None = None
    config: dict[str, Any] | None = Field(default=None, repr=False)


class ToolCall(Value):
    """A tool's parameters."""

    parameters: dict[str, Any] = Field(default_factory=dict, repr=False)


class PooledToolCall(ToolCall):
    """A tool's parameters, for whichever sandbox of a pool is free."""

    timeout: float | None = Field(default=None, ge=0, le=86_400)
    """Seconds to wait for one."""
