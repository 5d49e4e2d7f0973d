"""The definition of a pool, and a pool as it stands."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from sandpool.models.checks import (
    NAME_PATTERN,
    check_commands,
    check_env,
    check_labels,
    check_modules,
    check_working_dir,
)
from sandpool.models.files import Base64Data, check_files
from sandpool.models.health import HealthCheck
from sandpool.models.limits import LimitChange
from sandpool.models.network import Network
from sandpool.models.value import Port, Seconds, Value

Recycle = Literal["fresh", "reset", "reuse"]


class PoolSpec(Value):
    """The definition of a pool."""

    name: str = Field(pattern=NAME_PATTERN)
    # What to make.
    image: str = "host"
    backend: Literal["native", "docker", "auto"] = "native"
    """`auto`: native where the image is there for it, and else containers."""
    cpus: float = Field(default=1.0, gt=0, le=1024)
    memory_mb: int = Field(default=512, ge=16, le=16_777_216)
    disk_mb: int = Field(default=256, ge=1, le=16_777_216)
    pids: int = Field(default=128, ge=4, le=1_000_000)
    inodes: int = Field(default=65_536, ge=64, le=1_000_000_000)
    """Files and directories in all writable places together."""
    open_files: int = Field(default=1_024, ge=16, le=1_048_576)
    """Descriptors of each process, as far as this host lets a process have them."""
    max_limits: LimitChange | None = None
    """The most that a claim or lease may ask for with `limits`; what is not named here can only be
    lowered."""
    preload: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    working_dir: str = "/sandbox"
    tools_config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    # What it does before anybody asks: files, then `setup`, then `entrypoint`.
    files: dict[str, str | Base64Data] = Field(default_factory=dict, repr=False)
    """What to write into every sandbox, by path; relative ones start at `working_dir`."""
    setup: tuple[str | tuple[str, ...], ...] = ()
    """Commands that are run to their end, one after the other: a string by a shell."""
    setup_timeout: Seconds = 300.0
    """Seconds for each of them."""
    entrypoint: tuple[str, ...] = ()
    """The command line that serves; the sandbox is ready once `health_check` has found it so."""
    ports: tuple[Port, ...] = ()
    """Where it serves; the first one is the one whose URL a claim is given."""
    secret_names: tuple[str, ...] = ()
    """Which of the manager's secrets its commands have in their environment."""
    network: Network | None = None
    """What its sandboxes may connect to; None: they have a loopback of their own and nothing else.
    Native sandboxes only."""
    # How many.
    warm: int = Field(default=4, ge=0, le=100_000)
    max: int = Field(default=16, ge=1, le=100_000)
    builders: int = Field(default=4, ge=1, le=256)
    """Sandboxes that are made at one time; 20 where they have an entrypoint, which is waited for
    rather than worked for."""
    create_retries: int = Field(default=3, ge=0, le=100)
    """Failures in a row that are tried again before callers are told of them."""
    # How long, in seconds.
    lifetime: Seconds | None = None
    """From creation to the end, leased or not."""
    min_remaining: float = Field(default=0.0, ge=0)
    """What a claimed sandbox must have left of its lifetime."""
    max_age: Seconds | None = None
    """How old an idle sandbox may be when it is handed out."""
    timeout_secs: float = Field(default=0.0, ge=0)
    """How long a claimed sandbox lives from its hand-over; 0: no such limit."""
    claim_timeout: Seconds | None = None
    """How long a caller waits for a sandbox by default; None: without limit.  60 where they have an
    entrypoint."""
    maintain_every: Seconds = 30.0
    """The longest time between two looks at everything."""
    # How checked, and what after.
    health_check: HealthCheck = HealthCheck()
    """Before a sandbox is ready, every `maintain_every` while it is, and at its hand-over if asked.
    By default the guest's own ping; where there are an entrypoint and ports, a connection to the
    first one."""
    check_at_handover: bool = False
    """Whether a claim that does not say looks first; by default where there is an entrypoint."""
    recycle: Recycle = "fresh"
    """What happens to a sandbox that is given back; of containers, `reset` by default."""
    allow_get_claim: bool = False
    """Whether a server lets `GET /claim/{name}` take a sandbox."""
    # For whoever made it.
    labels: dict[str, str] = Field(default_factory=dict)
    """What its maker wants to find again beside it; sandpool only keeps it."""

    _env = field_validator("env")(check_env)
    _files = field_validator("files")(check_files)
    _commands = field_validator("setup", "entrypoint")(check_commands)
    _labels = field_validator("labels")(check_labels)
    _preload = field_validator("preload")(check_modules)
    _working_dir = field_validator("working_dir")(check_working_dir)

    @model_validator(mode="before")
    @classmethod
    def _fill_service(cls, fields: Any) -> Any:
        """Give a pool of services its defaults, so that its definition shows them."""
        if not isinstance(fields, dict):
            return fields
        given = cast("dict[str, Any]", fields)
        if given.get("backend") in ("docker", "auto"):
            # A container costs far more to make than to clean, and a fork the same either way.
            given = {"recycle": "reset", **given}
        if not given.get("entrypoint"):
            return given
        defaults: dict[str, Any] = {
            "builders": 20,
            "claim_timeout": 60.0,
            "check_at_handover": True,
        }
        if given.get("ports"):
            defaults["health_check"] = {"kind": "tcp"}
        return {**defaults, **given}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.network is not None and self.backend == "docker":
            raise ValueError("network: an allow list needs native sandboxes")
        if self.warm > self.max:
            raise ValueError(f"warm ({self.warm}) is more than max ({self.max})")
        if self.lifetime is not None and self.min_remaining >= self.lifetime:
            raise ValueError("min_remaining must be less than lifetime")
        for name, most in (self.max_limits or LimitChange()).given().items():
            if most < getattr(self, name):
                raise ValueError(f"max_limits: its {name} is less than the pool's own")
        if self.health_check.looks_at_port:
            if self.health_check.port is None and not self.ports:
                raise ValueError("health_check: it names no port, and the pool has no ports")
            if not self.entrypoint and not self.setup:
                raise ValueError(
                    "entrypoint: a health check on a port needs a command that serves there"
                )
        return self


class Quantiles(Value):
    """How long something took, in seconds, the latest times that it was done."""

    p50: float
    p99: float
    maximum: float
    count: int
    """How many times that was."""


class PoolInfo(Value):
    """A pool as it stands."""

    name: str
    pool_id: str
    spec: PoolSpec
    backend: str
    """What makes its sandboxes: what `spec` says, or what `auto` has come to."""
    state: Literal["open", "degraded", "draining", "closed"]
    ready: int
    creating: int
    starting: int = 0
    """How many of those `creating` have been made and are starting."""
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
    waits: Quantiles | None = None
    """How long callers waited for a sandbox; None: nobody has had one yet."""
    creations: Quantiles | None = None
    """How long it took to make one ready; None: none has been made."""
    last_error: str | None = None
