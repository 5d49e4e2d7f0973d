"""Requests for containers, served by native sandboxes where the operator has said so.

A client of this interface sends every field of its configuration, set or not, so a field with the
interface's own default says nothing: no container has a network because of it.  Of what a native
sandbox is to stand in for, any other value that only a container can have is refused by
its name, never dropped: what a native sandbox is must not surprise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandpool.errors import Unsupported
from sandpool.manager.recipe import parse_config
from sandpool.models import (
    DockerSandboxConfig,
    NativeSandboxConfig,
    SandboxConfig,
    SandboxType,
)

_CONTAINERS = frozenset({SandboxType.DOCKER, SandboxType.DOCKER_NOTEBOOK})

_TRANSLATED = frozenset({*SandboxConfig.model_fields, "image", "memory_limit", "cpu_limit"})

_ALSO_HARMLESS: Mapping[str, object] = {"network": None, "network_enabled": False}
"""Values beside the defaults that ask for what a native sandbox is anyway."""


def choose(
    sandbox_type: SandboxType, config: dict[str, Any] | None, *, docker_as_native: bool
) -> tuple[SandboxType, SandboxConfig | dict[str, Any] | None]:
    """Return the type and the configuration to make a sandbox from.

    Raises `InvalidSpec` or `Unsupported` for a container's configuration that no native sandbox
    can have.
    """
    if sandbox_type not in _CONTAINERS or (config is None and not docker_as_native):
        return sandbox_type, config
    wanted = parse_config(sandbox_type, config)
    assert isinstance(wanted, DockerSandboxConfig)
    if not docker_as_native:
        return sandbox_type, _what_is_said(wanted)
    return SandboxType.NATIVE, native_config(wanted)


def _what_is_said(wanted: DockerSandboxConfig) -> dict[str, Any]:
    return wanted.model_dump(exclude_defaults=True)


def native_config(wanted: DockerSandboxConfig) -> NativeSandboxConfig:
    """Return the native configuration that gives what a container's asks for; `Unsupported`."""
    _refuse_what_only_containers_have(wanted)
    given = wanted.model_fields_set
    limits = dict(wanted.resource_limits)
    if "memory_limit" in given and not limits.keys() & {"memory", "memory_mb"}:
        limits["memory"] = wanted.memory_limit
    if "cpu_limit" in given and not limits.keys() & {"cpu", "cpus"}:
        limits["cpus"] = wanted.cpu_limit
    return NativeSandboxConfig(
        image=wanted.image if "image" in given else "host",
        timeout=wanted.timeout,
        tools_config=wanted.tools_config,
        working_dir=wanted.working_dir,
        env_vars=wanted.env_vars,
        resource_limits=limits,
    )


def _refuse_what_only_containers_have(wanted: DockerSandboxConfig) -> None:
    for name, field in type(wanted).model_fields.items():
        value = getattr(wanted, name)
        if name in _TRANSLATED or value == field.get_default(call_default_factory=True):
            continue
        if name not in _ALSO_HARMLESS or value != _ALSO_HARMLESS[name]:
            raise Unsupported(f"{name}: a native sandbox has no such thing; leave it out")
