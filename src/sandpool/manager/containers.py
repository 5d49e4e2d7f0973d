"""From a container's configuration to what an engine is asked for, within the manager's policy.

What would give a container a way to the host is refused here unless whoever runs the manager has
allowed it; what is not asked for is not given, whatever the interface's own default is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sandpool.backends.base import ContainerSpec, PublishedPort, Volume
from sandpool.errors import InvalidSpec
from sandpool.models import ContainerPolicy, DockerSandboxConfig

_LOOPBACK = "127.0.0.1"
_PORT = re.compile(r"^(\d{1,5})(?:/(tcp|udp|sctp))?$")
_LAST_PORT = 65_535
_PLATFORM = re.compile(r"^[a-z0-9_.-]+(/[a-z0-9_.-]+){0,2}$")
_NETWORK = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")


def container_spec(config: DockerSandboxConfig, policy: ContainerPolicy) -> ContainerSpec:
    """Return what only a container has; `InvalidSpec` names the field that is wrong or refused."""
    if config.privileged and not policy.privileged:
        raise InvalidSpec(
            "privileged: this manager refuses it; whoever runs it may allow it with "
            "SandboxManagerConfig(containers=ContainerPolicy(privileged=True))"
        )
    if config.platform is not None and not _PLATFORM.match(config.platform):
        raise InvalidSpec(f"platform: {config.platform!r} is not such as 'linux/arm64'")
    network = _network(config, policy)
    if network is None:
        for name in ("ports", "extra_hosts"):
            if getattr(config, name):
                raise InvalidSpec(
                    f"{name}: a container without a network has no use for them; ask for one: "
                    "network_enabled=True"
                )
    return ContainerSpec(
        command=_command(config.command),
        network=network,
        extra_hosts=dict(config.extra_hosts),
        ports=tuple(_published(port, place) for port, place in config.ports.items()),
        volumes=tuple(_volume(path, how, policy) for path, how in config.volumes.items()),
        platform=config.platform,
        privileged=config.privileged,
        is_kept=not config.remove_on_exit,
        pull_interval=config.pull_progress_interval if config.pull_progress else None,
    )


def _command(command: str | list[str] | None) -> tuple[str, ...]:
    if command is None:
        return ()
    return ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)


def _network(config: DockerSandboxConfig, policy: ContainerPolicy) -> str | None:
    """Return the network to join; None unless one has been asked for."""
    given = config.model_fields_set
    asked = ("network_enabled" in given and config.network_enabled) or (
        "network" in given and "network_enabled" not in given
    )
    name = config.network
    if not asked or name is None or name == "none":
        return None
    if not _NETWORK.match(name):
        # Such as `container:ID`: the network of somebody else's container.
        raise InvalidSpec(f"network: {name!r} is not the name of a network")
    if name == "host" and not policy.host_network:
        raise InvalidSpec(
            "network: this manager refuses the host's; whoever runs it may allow it with "
            "SandboxManagerConfig(containers=ContainerPolicy(host_network=True))"
        )
    return name


def _published(port: str, place: int | str | tuple[str, int] | None) -> PublishedPort:
    found = _PORT.match(port)
    if found is None or not 0 < int(found[1]) <= _LAST_PORT:
        raise InvalidSpec(f"ports: {port!r} is not a port such as '8080/tcp'")
    host, number = place if isinstance(place, tuple) else (_LOOPBACK, place)
    if number is not None and (not str(number).isdecimal() or not 0 <= int(number) <= _LAST_PORT):
        raise InvalidSpec(f"ports: {place!r} is no place for {port}; give a port of this host")
    return PublishedPort(
        port=f"{found[1]}/{found[2] or 'tcp'}",
        host=host,
        host_port=int(number) if number is not None else None,
    )


def _volume(path: str, how: Mapping[str, str], policy: ContainerPolicy) -> Volume:
    target, mode = how.get("bind", ""), how.get("mode", "ro")
    if set(how) - {"bind", "mode"} or mode not in ("ro", "rw"):
        raise InvalidSpec(
            f"volumes: {path}: give 'bind' and, if need be, 'mode', which is ro or rw"
        )
    if not target.startswith("/") or target.rstrip("/") == "":
        raise InvalidSpec(
            f"volumes: {path}: 'bind' must be an absolute path inside, not {target!r}"
        )
    # Links are followed first: one below an allowed directory may lead anywhere.
    source = Path(path).expanduser().resolve()
    roots = [Path(root).resolve() for root in policy.volume_roots]
    if not any(source.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none"
        raise InvalidSpec(
            f"volumes: {path} lies below no directory that this manager allows ({allowed}); "
            "whoever runs it may allow one with "
            "SandboxManagerConfig(containers=ContainerPolicy(volume_roots=(...)))"
        )
    return Volume(source=str(source), target=target, is_writable=mode == "rw")
