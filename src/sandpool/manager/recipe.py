"""From what callers write to what backends make: pure conversions, no I/O but `FindImage`'s.

Everything that a configuration can ask for and a native sandbox cannot give is refused here, by the
name of the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from pydantic import ValidationError

from sandpool.backends.base import BoxSpec, Limits
from sandpool.errors import InvalidSpec, UnknownSandboxType, Unsupported
from sandpool.manager.containers import container_spec
from sandpool.manager.stored import pinned
from sandpool.models import (
    ContainerPolicy,
    DockerNotebookConfig,
    DockerSandboxConfig,
    NativeSandboxConfig,
    Network,
    PoolSpec,
    Recycle,
    SandboxConfig,
    SandboxType,
)

FindImage = Callable[[str], str]
"""Returns a stored image's name with its digest; `ImageNotFound`."""

HIDDEN = "***"
"""Shown in the place of every secret."""

_CONFIG_CLASSES: Mapping[SandboxType, type[SandboxConfig]] = {
    SandboxType.NATIVE: NativeSandboxConfig,
    SandboxType.DOCKER: DockerSandboxConfig,
    SandboxType.DOCKER_NOTEBOOK: DockerNotebookConfig,
}

_SIZE = re.compile(r"^(\d+)([kmg]?)$", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_MIB = 1024**2

_WHOLE_LIMITS = (
    ("memory_mb", 16, 16_777_216, "MiB"),
    ("pids", 4, 1_000_000, "processes"),
    ("disk_mb", 1, 16_777_216, "MiB"),
    ("inodes", 64, 1_000_000_000, "files"),
    ("open_files", 16, 1_048_576, "descriptors"),
)
"""Name, least, most, unit."""

_LIMIT_KEYS = frozenset({"memory", "cpu", "cpus", *(name for name, *_ in _WHOLE_LIMITS)})

# What only a container has, and the one value of each that a native sandbox agrees with anyway.
_ONLY_IN_CONTAINERS: Mapping[str, object] = {
    "command": None,
    "volumes": {},
    "ports": {},
    "network": None,
    "extra_hosts": {},
    "platform": None,
    "network_enabled": False,
    "privileged": False,
    "remove_on_exit": True,
}


def parse_type(sandbox_type: SandboxType | str) -> SandboxType:
    """Return the enum member for a type or its name."""
    try:
        return SandboxType(sandbox_type)
    except ValueError:
        known = ", ".join(SandboxType)
        raise UnknownSandboxType(
            f"{sandbox_type!r} is not a sandbox type; there are {known}"
        ) from None


def parse_config(
    sandbox_type: SandboxType, config: SandboxConfig | Mapping[str, Any] | None
) -> SandboxConfig:
    """Return a configuration of the type's class that nobody else can change.

    Raises `InvalidSpec` for a mapping that is no configuration of this type.
    """
    if isinstance(config, SandboxConfig):
        return config.model_copy(deep=True)
    if config is not None and not isinstance(config, Mapping):
        raise InvalidSpec(f"config must be a SandboxConfig or a dict, not {type(config).__name__}")
    kind = _CONFIG_CLASSES.get(sandbox_type, SandboxConfig)
    try:
        return kind.model_validate(dict(config or {}))
    except ValidationError as error:
        raise invalid(kind.__name__, error) from None


def invalid(what: str, error: ValidationError) -> InvalidSpec:
    """Turn a validation error into one sentence per field, without the inputs."""
    faults = [
        f"{'.'.join(map(str, fault['loc'])) or what}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return InvalidSpec(f"{what}: {'; '.join(faults)}")


def box_spec(
    config: SandboxConfig,
    images: Mapping[str, str],
    sandbox_type: SandboxType = SandboxType.NATIVE,
    policy: ContainerPolicy | None = None,
    find: FindImage = pinned,
    *,
    egress: bool = True,
) -> BoxSpec:
    """Return what the backend of a type makes from an enclave configuration.

    `egress` is whether native sandboxes may be given a network.

    Raises `InvalidSpec`, `ImageNotFound`, or `Unsupported` naming the field.
    """
    if sandbox_type is not SandboxType.NATIVE and isinstance(config, DockerSandboxConfig):
        return _container_box(config, images, policy or ContainerPolicy())
    image = "host"
    preload: tuple[str, ...] = ()
    network: Network | None = None
    limits = dict(config.resource_limits)
    if isinstance(config, NativeSandboxConfig):
        image, preload, network = config.image, config.preload, config.network
        if network is not None and not egress:
            raise InvalidSpec(
                "network: this manager refuses it; whoever runs it may allow it with "
                "SandboxManagerConfig(egress=True), or a server's with `egress = true`"
            )
    elif isinstance(config, DockerSandboxConfig):
        _refuse_container_fields(config)
        if "image" in config.model_fields_set:
            image = config.image
        if "memory_limit" in config.model_fields_set:
            limits.setdefault("memory", config.memory_limit)
        if "cpu_limit" in config.model_fields_set:
            limits.setdefault("cpus", config.cpu_limit)
    return BoxSpec(
        image=resolve_image(image, images, find),
        preload=preload,
        env=dict(config.env_vars),
        working_dir=config.working_dir,
        limits=parse_limits(limits),
        network=network,
    )


def _container_box(
    config: DockerSandboxConfig, images: Mapping[str, str], policy: ContainerPolicy
) -> BoxSpec:
    limits = dict(config.resource_limits)
    if not limits.keys() & {"memory", "memory_mb"}:
        limits["memory"] = config.memory_limit
    if not limits.keys() & {"cpu", "cpus"}:
        limits["cpus"] = config.cpu_limit
    image = images.get(config.image, config.image)
    if image == "host" or image.startswith("/"):
        # That stands for it where there are no containers.
        image = config.image
    return BoxSpec(
        image=image,
        preload=config.preload,
        env=dict(config.env_vars),
        working_dir=config.working_dir,
        limits=parse_limits(limits),
        container=container_spec(config, policy),
    )


def pool_config(
    spec: PoolSpec, sandbox_type: SandboxType
) -> NativeSandboxConfig | DockerSandboxConfig:
    """Return the configuration that the sandboxes of a pool have, of the type they are to be."""
    kind = NativeSandboxConfig if sandbox_type is SandboxType.NATIVE else DockerSandboxConfig
    config = kind(
        image=spec.image,
        preload=spec.preload,
        tools_config={name: dict(settings) for name, settings in spec.tools_config.items()},
        working_dir=spec.working_dir,
        env_vars=dict(spec.env),
        resource_limits={
            "memory_mb": spec.memory_mb,
            "cpus": spec.cpus,
            "pids": spec.pids,
            "disk_mb": spec.disk_mb,
            "inodes": spec.inodes,
            "open_files": spec.open_files,
        },
    )
    if isinstance(config, NativeSandboxConfig):
        config.network = spec.network
    elif spec.network is not None:
        raise InvalidSpec("network: an allow list needs native sandboxes")
    return config


def shared_pool(
    name: str,
    config: SandboxConfig,
    box: BoxSpec,
    *,
    size: int,
    recycle: Recycle | None,
    max_age: float,
) -> PoolSpec:
    """Return the definition of a pool of `size` sandboxes that `initialize_pool` asks for.

    The pool has that many members and no more, whether they are free or lent.
    """
    return PoolSpec(
        name=name,
        image=box.image,
        backend="native" if box.container is None else "docker",
        cpus=box.limits.cpus,
        memory_mb=box.limits.memory_mb,
        disk_mb=box.limits.disk_mb,
        pids=box.limits.pids,
        inodes=box.limits.inodes,
        open_files=box.limits.open_files,
        preload=box.preload,
        env=dict(box.env),
        working_dir=box.working_dir,
        network=box.network,
        tools_config={key: dict(settings) for key, settings in config.tools_config.items()},
        warm=size,
        max=size,
        max_age=max_age,
        recycle=recycle or ("fresh" if box.container is None else "reset"),
    )


def resolve_image(image: str, images: Mapping[str, str], find: FindImage) -> str:
    """Return what the native backend calls this image.

    `images` maps names to `host` or directories; of others, `find` knows.  Raises what it does.
    """
    found = images.get(image, image)
    return found if found == "host" or found.startswith("/") else find(found)


def parse_limits(limits: Mapping[str, Any]) -> Limits:
    """Return the limits that `resource_limits` asks for; what it leaves out is the default."""
    unknown = sorted(set(limits) - _LIMIT_KEYS)
    if unknown:
        known = ", ".join(sorted(_LIMIT_KEYS))
        raise InvalidSpec(f"resource_limits: unknown limit {unknown[0]!r}; there are {known}")
    _refuse_both(limits, "memory", "memory_mb")
    _refuse_both(limits, "cpu", "cpus")
    found: dict[str, Any] = {}
    if "memory" in limits:
        found["memory_mb"] = _bounded("memory", _mib(limits["memory"]), 16, 16_777_216, "MiB")
    for name in ("cpu", "cpus"):
        if name in limits:
            found["cpus"] = _bounded(name, _number(name, limits[name]), 0.001, 1024, "processors")
    for name, least, most, unit in _WHOLE_LIMITS:
        if name in limits:
            found[name] = _whole(name, limits[name], least, most, unit)
    return Limits(**found)


def redacted(config: SandboxConfig) -> dict[str, Any]:
    """Return a configuration as plain values, its environment by name only."""
    plain = config.model_dump(exclude_none=True)
    plain["env_vars"] = dict.fromkeys(config.env_vars, HIDDEN)
    if "token" in plain:
        plain["token"] = HIDDEN
    return plain


def redacted_spec(spec: PoolSpec) -> PoolSpec:
    """Return a pool's definition, its environment by name only."""
    return spec.model_copy(update={"env": dict.fromkeys(spec.env, HIDDEN)})


def unredacted_spec(spec: PoolSpec, old: PoolSpec) -> PoolSpec:
    """Put back the values that a definition read from a manager does not show."""
    env = {
        name: old.env[name] if value == HIDDEN and name in old.env else value
        for name, value in spec.env.items()
    }
    return spec.model_copy(update={"env": env})


def _refuse_container_fields(config: DockerSandboxConfig) -> None:
    for name, harmless in _ONLY_IN_CONTAINERS.items():
        if name in config.model_fields_set and getattr(config, name) != harmless:
            raise Unsupported(f"{name}: a native sandbox has no such thing; leave it out")


def _refuse_both(limits: Mapping[str, Any], one: str, other: str) -> None:
    if one in limits and other in limits:
        raise InvalidSpec(f"resource_limits: give {one} or {other}, not both")


def _mib(value: object) -> float:
    if isinstance(value, str):
        match = _SIZE.match(value)
        if match is None:
            raise InvalidSpec(f"resource_limits: memory {value!r} is not a size such as '512m'")
        return int(match[1]) * _UNITS[match[2].lower()] // _MIB
    return _number("memory", value) // _MIB


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(name, f"a number, not {type(value).__name__}")
    return value


def _whole(name: str, value: object, least: int, most: int, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(name, f"a whole number, not {type(value).__name__}")
    return int(_bounded(name, value, least, most, unit))


def _bounded(name: str, value: float, least: float, most: float, unit: str) -> float:
    # Not `value < least or value > most`: that would let a NaN through.
    if not least <= value <= most:
        _refuse(name, f"between {least} and {most} {unit}")
    return int(value) if isinstance(least, int) else value


def _refuse(name: str, expected: str) -> NoReturn:
    raise InvalidSpec(f"resource_limits: {name} must be {expected}")
