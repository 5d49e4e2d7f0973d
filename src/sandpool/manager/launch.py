"""`Launch`: what is done in a new sandbox of a pool before it is ready.  Values; no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sandpool.errors import InvalidSpec
from sandpool.manager.hold import command_line
from sandpool.models import HealthCheck, PoolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is done in every new sandbox of a pool."""

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What to write, by path."""
    setup: tuple[tuple[str, ...], ...] = ()
    """The command lines that are run to their end."""
    setup_timeout: float = 300.0
    """Seconds for each of them."""
    entrypoint: tuple[str, ...] = ()
    """The command line that serves."""
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """What these commands have in their environment beyond the pool's: its secrets."""


def pool_launch(spec: PoolSpec, secrets: Mapping[str, str]) -> Launch:
    """Return what is done in every new sandbox of a pool; `InvalidSpec` for an unknown secret."""
    return Launch(
        files={
            path: data.encode() if isinstance(data, str) else data.base64
            for path, data in spec.files.items()
        },
        setup=tuple(command_line(command) for command in spec.setup),
        setup_timeout=spec.setup_timeout,
        entrypoint=spec.entrypoint,
        env=chosen_secrets(spec.secret_names, secrets),
    )


def longest_launch(spec: PoolSpec) -> float:
    """Return the seconds that what a pool does in a new sandbox may take."""
    starts = spec.health_check.start_timeout if spec.entrypoint else 0.0
    return len(spec.setup) * spec.setup_timeout + starts


def pool_health(spec: PoolSpec) -> HealthCheck:
    """Return a pool's health check with its port filled in."""
    health = spec.health_check
    if health.looks_at_port and health.port is None:
        return health.model_copy(update={"port": spec.ports[0]})
    return health


def chosen_secrets(names: Collection[str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the named secrets; `InvalidSpec` names the first that there is none of."""
    for name in names:
        if name not in secrets:
            raise InvalidSpec(f"secret_names: there is no secret {name!r}")
    return {name: secrets[name] for name in names}
