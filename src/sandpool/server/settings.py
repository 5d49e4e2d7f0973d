"""What an operator decides: where the server listens, who may use it, and how much of it.

Read once, from a TOML file, the environment and the command line; nothing else reads them.
"""

from __future__ import annotations

import ipaddress
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sandpool.errors import InvalidSpec
from sandpool.models import ContainerPolicy, Value, check_env

DEFAULT_PORT = 8400

NAMESPACE_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"


class NamespaceLimits(Value):
    """What the holders of one namespace may use together."""

    max_sandboxes: int = Field(default=1_000, ge=1, le=1_000_000)
    """Sandboxes at one time, those that wait in pools included."""
    max_pools: int = Field(default=64, ge=0, le=100_000)
    max_leases: int = Field(default=1_000, ge=0, le=1_000_000)
    """Leases that are held over HTTP at one time."""
    requests_per_second: float = Field(default=2_000.0, gt=0)
    burst: int = Field(default=4_000, ge=1)
    """Requests that may come at once after a time of quiet."""


class KeySettings(Value):
    """One key, by its hash: whoever reads the file cannot use it."""

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    namespace: str = Field(default="default", pattern=NAMESPACE_PATTERN)


class ServerSettings(Value):
    """All of a server's settings."""

    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    domain: str | None = Field(default=None, pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    """The domain below which sandboxes' ports have host names, `{port}-{id}.{domain}`."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+$")
    """How the server is reached from outside, where something stands in front of it; by default as
    each request says."""
    keys: tuple[KeySettings, ...] = ()
    default_limits: NamespaceLimits = NamespaceLimits()
    limits: dict[str, NamespaceLimits] = Field(default_factory=dict)
    """By namespace, where not the default ones."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may call the server; none by default."""
    hosts: tuple[str, ...] = ()
    """Host names, beside the addresses it listens on, under which it answers."""
    root_dialect: str | None = None
    """The dialect whose paths are also served without a prefix."""
    images: dict[str, str] = Field(default_factory=dict)
    """What image names stand for: `host`, or the path of a root directory."""
    containers: ContainerPolicy = ContainerPolicy()
    """What containers may be given beyond what is safe."""
    egress: bool = False
    """Whether pools and sandboxes may ask for a network (`PoolSpec.network`)."""
    docker_as_native: bool = False
    """Whether dialects give native sandboxes to who asks for containers."""
    default_image: str = Field(default="host", min_length=1)
    """What dialects make a sandbox from whose request names no image."""
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    """Values that pools may ask for by name, as environment variables of their sandboxes."""
    on_timeout: Literal["suspend", "terminate"] = "suspend"
    """What the Tensorlake dialect does with a sandbox that has run for its `timeout_secs`."""
    state_dir: Path | None = None
    """Where pools are remembered over a restart; None: nowhere."""
    cleanup_interval: int = Field(default=300, gt=0)
    """Seconds between sweeps for forgotten sandboxes."""
    max_body: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Bytes of a request that is no upload."""
    max_upload: int = Field(default=1024 * 1024 * 1024, ge=1024)
    """Bytes of an uploaded file or archive."""
    head_timeout: float = Field(default=20.0, gt=0)
    """Seconds in which a request's line and headers have to come."""
    max_connections: int = Field(default=4096, ge=1)
    """Connections at one time, of all clients together."""
    body_timeout: float = Field(default=30.0, gt=0)
    """Seconds that may pass without a byte of a request's body."""
    grace: int = Field(default=20, ge=0)
    """Seconds that calls in progress have to end when the server is told to stop."""
    port_timeout: float = Field(default=60.0, gt=0)
    """Seconds in which a server inside a sandbox has to begin its answer."""
    port_idle_timeout: float = Field(default=600.0, gt=0)
    """Seconds that may pass without a byte, or a message, in either direction of a connection to a
    sandbox's port."""
    event_silence: float = Field(default=15.0, gt=0)
    """Seconds without an event after which a reader of events gets a sign of life."""
    event_patience: float = Field(default=30.0, gt=0)
    """Seconds that a reader of events may leave them unread."""
    max_namespaces: int = Field(default=64, ge=1)
    """Namespaces that an open server, one without keys, lets its callers make."""

    _secrets = field_validator("secrets")(check_env)

    @field_validator("images")
    @classmethod
    def _targets(cls, images: dict[str, str]) -> dict[str, str]:
        for name, target in images.items():
            if target != "host" and not target.startswith("/"):
                raise ValueError(f"image {name!r} must be 'host' or an absolute path")
        return images

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) != len(names):
            raise ValueError("two keys have the same name")
        return self

    def limits_of(self, namespace: str) -> NamespaceLimits:
        """Return what a namespace may use."""
        return self.limits.get(namespace, self.default_limits)

    def check_exposure(self, *, is_open: bool) -> None:
        """Refuse to serve others than this machine's users without a key; `InvalidSpec`."""
        if is_open and not is_loopback(self.host):
            raise InvalidSpec(
                f"{self.host} can be reached from other machines, and the server has no key: "
                "make one with `sandpool key add`, or listen on 127.0.0.1"
            )


@lru_cache(maxsize=256)
@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, not yet checked; `InvalidSpec` names file and line."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSpec(f"{path} is not TOML: {error}") from error


def parse(fields: dict[str, Any]) -> ServerSettings:
    """Check settings; `InvalidSpec` names the first that is wrong."""
    try:
        return ServerSettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise InvalidSpec(f"{where}: {first['msg']}") from None
