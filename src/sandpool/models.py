"""Values that both ends of the wire share, and the enclave interface's models.

Our own values are frozen and refuse unknown fields, so that a misspelt limit never becomes no
limit.  The enclave models keep that interface's names, fields and defaults.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

Stream = Literal["stdout", "stderr"]

DEFAULT_MAX_OUTPUT = 1_048_576
"""Bytes of stdout and of stderr that a collected run keeps."""
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


_MOST_LABELS = 64
_LONGEST_LABEL = 16_384


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Refuse labels that are too many or too long to be kept for somebody else."""
    if len(labels) > _MOST_LABELS:
        raise ValueError(f"there are {len(labels)} labels, more than {_MOST_LABELS}")
    for name, value in labels.items():
        if len(name) + len(value) > _LONGEST_LABEL:
            raise ValueError(f"a label and its value have at most {_LONGEST_LABEL} characters")
    return labels


_MOST_FILES = 1_000
_MOST_FILE_BYTES = 8 * 1024 * 1024


def check_files(files: dict[str, str | Base64Data]) -> dict[str, str | Base64Data]:
    """Refuse files that have no place, or are more than a definition should carry."""
    if len(files) > _MOST_FILES:
        raise ValueError(f"there are {len(files)} files, more than {_MOST_FILES}")
    for path in files:
        if not path or "\0" in path or ".." in path.split("/") or path.endswith("/"):
            raise ValueError(f"{path!r} is not the path of a file")
    size = sum(
        len(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data.base64)
        for data in files.values()
    )
    if size > _MOST_FILE_BYTES:
        raise ValueError(f"they have {size} bytes together, more than {_MOST_FILE_BYTES}")
    return files


def check_commands(
    commands: tuple[str | tuple[str, ...], ...],
) -> tuple[str | tuple[str, ...], ...]:
    """Refuse command lines that no program can be started with."""
    for command in commands:
        if not command or any("\0" in part for part in command):
            raise ValueError("a command is not empty and has no NUL byte in it")
    return commands


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
Port = Annotated[int, Field(ge=1, le=65_535)]
"""A TCP port."""


class HealthCheck(Value):
    """How to tell that a sandbox is healthy, beyond its guest answering."""

    kind: Literal["guest", "exec", "tcp", "http"] = "guest"
    command: tuple[str, ...] = ()
    """For `exec`: the command line that must exit with 0."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """For `tcp` and `http`: the port that must accept a connection; None: the first of the pool's
    `ports`."""
    path: str = Field(default="/", pattern=r"^/[!-~]*$", max_length=2_048)
    """For `http`: what a GET must be answered for, with a status below 400."""
    timeout: _Positive = 5.0
    """Seconds for one look."""
    start_timeout: _Positive = 10.0
    """Seconds from the start of the entrypoint in which a look must have found it healthy."""
    interval: float = Field(default=0.1, gt=0, le=60)
    """Seconds between two looks at an entrypoint that is starting, at most."""

    @property
    def looks_at_port(self) -> bool:
        """Whether it needs something that listens."""
        return self.kind in ("tcp", "http")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "exec" and not self.command:
            raise ValueError("a health check of kind exec needs a command")
        return self


class Base64Data(Value):
    """Bytes that are not text."""

    base64: Base64Bytes = Field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return these bytes as a value."""
        return cls(base64=b64encode(data))


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


PortRange = Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")]
"""The first and the last of some ports, as in `8000-8099`."""

_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LOOKS_LIKE_ADDRESS = re.compile(r"[0-9./]+")
_NOWHERE = tuple(
    map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"))
)
"""What no sandbox can be let through to: itself, nobody, or our own links (`native/egress`)."""


class Destination(Value):
    """Where a sandbox may connect to."""

    host: str = Field(min_length=1, max_length=255)
    """A name, as in `pypi.org`; all names below one, as in `*.example.com`; all names, `*`; an IPv4
    address; or a network, as in `203.0.113.0/24`.  Private and link-local addresses, and those of
    the host, are open only to what names them, or a part of their range: `10.1.0.0/16`."""
    ports: tuple[Port | PortRange, ...] = Field(default=(), max_length=16)
    """Numbers, and ranges such as `8000-8099`; none: all."""
    protocol: Literal["tcp", "udp", "any"] = "tcp"

    @field_validator("host")
    @classmethod
    def _known_host(cls, host: str) -> str:
        host = host.lower()
        if ":" in host:
            raise ValueError(
                f"{host!r} is neither a name nor an IPv4 address or network; ports have a field of "
                "their own, and IPv6 is closed"
            )
        if _LOOKS_LIKE_ADDRESS.fullmatch(host):
            network = _network(host)
            if any(network.subnet_of(nowhere) for nowhere in _NOWHERE):
                raise ValueError(f"{host} cannot be reached from a sandbox, whatever is allowed")
        elif host != "*" and not _is_name(host.removeprefix("*.")):
            raise ValueError(
                f"{host!r} is not a host name, such as 'pypi.org', nor a wildcard, such as "
                "'*.pypi.org'"
            )
        return host

    @field_validator("ports")
    @classmethod
    def _known_ports(cls, ports: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for first, last in map(_port_range, ports):
            if not 1 <= first <= last <= _LAST_PORT:
                raise ValueError(f"{first}-{last} is not a range of ports from 1 to {_LAST_PORT}")
        return ports

    @property
    def network(self) -> IPv4Network | None:
        """What it is, if it is an address or a network; None: it is a name."""
        return _network(self.host) if _LOOKS_LIKE_ADDRESS.fullmatch(self.host) else None

    @property
    def port_ranges(self) -> tuple[tuple[int, int], ...]:
        """The first and the last of each range of ports; empty: all."""
        return tuple(map(_port_range, self.ports))


_LAST_PORT = 65_535


def _port_range(port: int | str) -> tuple[int, int]:
    first, _, last = str(port).partition("-")
    return int(first), int(last or first)


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IPv4 address or network: {error}") from None


def _is_name(name: str) -> bool:
    return len(name) <= 253 and all(map(_HOST_NAME.fullmatch, name.split(".")))


class Network(Value):
    """What sandboxes may connect to; everything else is refused, and nobody connects to them."""

    allow: tuple[Destination, ...] = Field(min_length=1, max_length=256)
    """A host alone may stand for its destination."""

    @field_validator("allow", mode="before")
    @classmethod
    def _hosts_to_destinations(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            items = cast("Collection[object]", value)
            return [{"host": item} if isinstance(item, str) else item for item in items]
        return value


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
    setup_timeout: _Positive = 300.0
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
    lifetime: _Positive | None = None
    """From creation to the end, leased or not."""
    min_remaining: float = Field(default=0.0, ge=0)
    """What a claimed sandbox must have left of its lifetime."""
    max_age: _Positive | None = None
    """How old an idle sandbox may be when it is handed out."""
    timeout_secs: float = Field(default=0.0, ge=0)
    """How long a claimed sandbox lives from its hand-over; 0: no such limit."""
    claim_timeout: _Positive | None = None
    """How long a caller waits for a sandbox by default; None: without limit.  60 where they have an
    entrypoint."""
    maintain_every: _Positive = 30.0
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


_MIB = 1024 * 1024


class ImagePull(Value):
    """How far an image is that is being pulled, as far as the engine that does it has told."""

    layers: int
    """Those that it has named so far."""
    layers_done: int
    """Those of them that are unpacked, or were there before."""
    bytes_done: int
    """What has been downloaded."""
    bytes_total: int
    """What the layers that are being downloaded have in all; it grows as more of them begin."""

    def __str__(self) -> str:
        """Say it in one line."""
        size = f"{self.bytes_done / _MIB:.1f} of {self.bytes_total / _MIB:.1f} MiB"
        return f"{size}, {self.layers_done} of {self.layers} layers"


class ImageInfo(Value):
    """What sandboxes can be made from, by name."""

    name: str
    pools: tuple[str, ...] = ()
    """The pools whose sandboxes are made from it, in the order of their names."""
    pull: ImagePull | None = None
    """How far it is; None: it is not being pulled."""


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
    network: Network | None = None
    """What it may connect to; None: nothing."""

    _preload = field_validator("preload")(check_modules)


class DockerSandboxConfig(SandboxConfig):
    """A container's configuration, with the enclave interface's fields and defaults.

    `preload` is sandpool's own.
    """

    image: str = "python:3.11-slim"
    preload: tuple[str, ...] = ()
    command: str | list[str] | None = None
    """Runs in the background from the sandbox's start; a string by a shell."""
    volumes: dict[str, dict[str, str]] = Field(default_factory=dict)
    """`{host path: {"bind": path inside, "mode": "ro" or "rw"}}`; by default "ro".  Only below the
    manager's `containers.volume_roots`."""
    ports: dict[str, int | str | tuple[str, int] | None] = Field(default_factory=dict)
    """Where on the host a port such as "8080/tcp" is reached: a port of 127.0.0.1, an (address,
    port), or None for a free one.  Needs a network."""
    network: str | None = "bridge"
    """The engine's network to join, where one is asked for."""
    extra_hosts: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    memory_limit: str = Field(default="4g", pattern=r"^\d+[kmgKMG]?$")
    cpu_limit: float = Field(default=2.0, gt=0)
    network_enabled: bool = True
    """Left out, as `network`, it asks for nothing: there is then no network but loopback."""
    privileged: bool = False
    """Only where the manager's `containers.privileged` allows it."""
    remove_on_exit: bool = True
    pull_progress: bool = False
    """Whether the progress of a pull is logged, every `pull_progress_interval` seconds."""
    pull_progress_interval: float = Field(default=3.0, gt=0)
    docker_executor_workers: int = Field(default=8, gt=0)
    """Accepted for the interface's sake: there are no worker threads."""

    _preload = field_validator("preload")(check_modules)


class DockerNotebookConfig(DockerSandboxConfig):
    """A notebook container's configuration.

    Its kernel is an interpreter of the image itself, reached over the sandbox's own connection: no
    port is opened, so `host`, `port` and `token` are accepted for the interface's sake only.
    """

    image: str = "jupyter-kernel-gateway"
    host: str = "127.0.0.1"
    port: int = Field(default=8888, ge=0, le=65_535)
    token: str | None = None


class ContainerPolicy(Value):
    """What the containers of a manager may be given; whoever runs the manager decides."""

    privileged: bool = False
    """Whether a container may be privileged, which is as good as root on the host."""
    host_network: bool = False
    """Whether a container may have the host's network."""
    volume_roots: tuple[str, ...] = ()
    """Directories of the host; only what lies below one of them may be a volume."""


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
    containers: ContainerPolicy = ContainerPolicy()
    """What containers may be given beyond what is safe."""
    egress: bool = True
    """Whether native sandboxes may be given a network (`PoolSpec.network`); without it: refused."""
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
