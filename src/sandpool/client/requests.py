"""What callers of `SandboxClient` ask for, as the manager's values: pure conversions.

What cannot be given is refused here by the name of its argument, so that nothing that a caller
relies on is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sandpool.client.records import NO_CEILING, Resources
from sandpool.errors import InvalidSpec, Unsupported
from sandpool.manager.recipe import invalid
from sandpool.models import NativeSandboxConfig, PoolSpec

DEFAULTS = Resources()
"""What a sandbox may use where nobody says."""

DEFAULT_IMAGE = "host"
"""What a sandbox is made from where nobody says."""

_NOT_HERE: Mapping[str, str] = {
    "secret_names": "there is no secret store to take them from",
    "entrypoint": "a sandbox is started by its own guest; start the command with `run`",
    "network": "a sandbox has no network, and so no policy for one",
    "gpus": "a sandbox has none",
}


def refuse_unsupported(given: Mapping[str, object]) -> None:
    """Raise `Unsupported` for the first argument that asks for what no sandbox has."""
    for name, value in given.items():
        if value:
            raise Unsupported(f"{name}: {_NOT_HERE[name]}")


def refuse_with_pool(given: Mapping[str, object]) -> None:
    """Raise `InvalidSpec` for the first argument that a sandbox from a pool takes from its pool."""
    for name, value in given.items():
        if value is not None:
            raise InvalidSpec(f"{name}: a sandbox from a pool has its pool's; leave it out")


def disk(ephemeral_disk_mb: int | None, disk_mb: int | None) -> int | None:
    """Return the one size that is given by either name; `InvalidSpec` if they differ."""
    if disk_mb is None:
        return ephemeral_disk_mb
    if ephemeral_disk_mb not in (None, DEFAULTS.ephemeral_disk_mb, disk_mb):
        raise InvalidSpec(
            f"disk_mb ({disk_mb}) and ephemeral_disk_mb ({ephemeral_disk_mb}) are the same thing; "
            "give one of them"
        )
    return disk_mb


def new_pool(
    pool_id: str,
    *,
    image: str,
    cpus: float,
    memory_mb: int,
    disk_mb: int | None,
    warm_containers: int | None,
    max_containers: int | None,
    timeout_secs: float,
    preload: Sequence[str],
) -> PoolSpec:
    """Return the definition of a new pool; `InvalidSpec`."""
    return _pool(
        name=pool_id,
        image=image,
        cpus=cpus,
        memory_mb=memory_mb,
        disk_mb=disk_mb,
        warm=0 if warm_containers is None else warm_containers,
        max=NO_CEILING if max_containers is None else max_containers,
        timeout_secs=timeout_secs,
        preload=tuple(preload),
    )


def changed_pool(
    spec: PoolSpec,
    *,
    image: str | None,
    cpus: float | None,
    memory_mb: int | None,
    disk_mb: int | None,
    warm_containers: int | None,
    max_containers: int | None,
    timeout_secs: float | None,
    preload: Sequence[str] | None,
) -> PoolSpec:
    """Return a pool's definition with what is not None put in; `InvalidSpec`."""
    changes = {
        "image": image,
        "cpus": cpus,
        "memory_mb": memory_mb,
        "disk_mb": disk_mb,
        "warm": warm_containers,
        "max": max_containers,
        "timeout_secs": timeout_secs,
        "preload": None if preload is None else tuple(preload),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return _pool(**{**spec.model_dump(), **given})


def lone_sandbox(
    *, image: str | None, cpus: float | None, memory_mb: int | None, disk_mb: int | None
) -> NativeSandboxConfig:
    """Return the configuration of a sandbox that belongs to no pool; `InvalidSpec`."""
    try:
        return NativeSandboxConfig(
            image=DEFAULT_IMAGE if image is None else image,
            resource_limits={
                "cpus": DEFAULTS.cpus if cpus is None else cpus,
                "memory_mb": DEFAULTS.memory_mb if memory_mb is None else memory_mb,
                "disk_mb": DEFAULTS.ephemeral_disk_mb if disk_mb is None else disk_mb,
            },
        )
    except ValidationError as error:
        raise invalid("sandbox", error) from None


def _pool(**fields: Any) -> PoolSpec:
    try:
        return PoolSpec.model_validate(fields)
    except ValidationError as error:
        raise invalid("pool", error) from None
