"""What the engine is asked to make for one sandbox: pure, from the spec to the request's body.

Everything is shut by default.  The file system of the image cannot be written; what can be is a
tmpfs, so that it is bounded, and gone with the container.  Nobody inside is root or can become it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandpool.backends.base import BoxSpec, ContainerSpec, Limits
from sandpool.backends.docker.interpreter import Interpreter
from sandpool.errors import InvalidSpec, Unsupported

TENANT = 1000
"""The uid and gid of every process in a sandbox, the guest included."""

HOME = "/home/sandbox"
RUN_DIR = "/run/sandpool"

_MIB = 1024 * 1024
_SHARED_MEMORY_MB = 64
_NOTHING = "nothing"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RUN_DIR_MB = 32
_RUN_DIR_INODES = 1024

# A warm interpreter is forked, so it must stay single-threaded: the numeric libraries start
# threads of their own when they are imported, unless told otherwise.
_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108 (inside the sandbox)
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the engine has it."""

    name: str
    """As it was asked for."""
    id: str
    """The digest of its configuration: what containers are made from, whatever is tagged later."""
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    """The places that its author declared as volumes."""
    platform: str | None = None
    """As it was asked for; None: the engine's."""


def read_image(name: str, platform: str | None, described: Mapping[str, Any]) -> Image:
    """Return an image from what the engine says about it."""
    config: Mapping[str, Any] = described.get("Config") or {}
    entries: Sequence[str] = config.get("Env") or ()
    env = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    volumes = tuple(sorted(config.get("Volumes") or ()))
    return Image(name, described["Id"], env, volumes, platform)


def environment(image: Image, spec: BoxSpec) -> dict[str, str]:
    """Return the environment of everything that runs in the sandbox."""
    return {
        "PATH": _DEFAULT_PATH,
        "LANG": "C.UTF-8",
        **image.env,
        "HOME": HOME,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        **spec.env,
    }


def settings(image: Image, spec: BoxSpec, executable: str | None) -> dict[str, Any]:
    """Return what the guest is told at its start; see `guest.settings`.

    Without an `executable` there is no Python for the tenant.
    """
    return {
        "uid": None,
        "gid": None,
        "keeps_rights": _asked(spec).privileged,
        "home": HOME,
        "working_dir": spec.working_dir,
        "env": environment(image, spec),
        "rlimits": rlimits(spec.limits),
        "run_dir": RUN_DIR,
        "writable": _writable(image, spec),
        "has_python": executable is not None,
        "executable": executable,
    }


def rlimits(limits: Limits) -> dict[str, int]:
    """Return the rlimits, soft and hard, of every process that runs in the sandbox.

    Nothing that the kernel counts by user for the whole host, such as processes: all sandboxes have
    the same one.
    """
    return {
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk_mb * _MIB,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
    }


def resources(limits: Limits) -> dict[str, int]:
    """Return what the engine is told of `limits`, when it makes a container and later."""
    return {
        "Memory": limits.memory_mb * _MIB,
        # The sum of memory and swap: no swap.
        "MemorySwap": limits.memory_mb * _MIB,
        "NanoCpus": int(limits.cpus * 1_000_000_000),
        "PidsLimit": limits.pids,
    }


def request(
    image: Image,
    spec: BoxSpec,
    *,
    interpreter: Interpreter,
    program: str,
    labels: Mapping[str, str],
    runtime: str | None,
) -> dict[str, Any]:
    """Return the body of the request that makes a container; `program` is what it begins with."""
    asked = _asked(spec)
    user = 0 if asked.privileged else TENANT
    host: dict[str, Any] = {
        "NetworkMode": asked.network or "none",
        "ReadonlyRootfs": True,
        "Tmpfs": tmpfs(image, spec) | dict.fromkeys(interpreter.hidden, "ro,size=4k,mode=755"),
        "Mounts": _mounts(asked) + _lent(interpreter),
        "ShmSize": min(_SHARED_MEMORY_MB, spec.limits.disk_mb) * _MIB,
        "IpcMode": "private",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "ExtraHosts": [f"{name}:{address}" for name, address in asked.extra_hosts.items()],
        "PortBindings": _bindings(asked),
        **resources(spec.limits),
        # The output is our protocol: nobody is to write it to a disk.
        "LogConfig": {"Type": "none"},
        # The guest reaps what it inherits, so it is its own init.
        "Init": False,
    }
    if asked.privileged:
        host |= {"Privileged": True, "CapDrop": [], "SecurityOpt": [], "ReadonlyRootfs": False}
    if runtime is not None:
        host["Runtime"] = runtime
    start = {name: value for name, value in environment(image, spec).items() if name != "PATH"}
    for name in spec.env:
        # A value that the caller chose may be a secret, and `docker inspect` shows this place.
        start.pop(name, None)
    first = {**_ONE_THREAD, **start, **interpreter.env}
    return {
        "Image": image.id,
        "Hostname": "sandbox",
        "User": f"{user}:{user}",
        "WorkingDir": "/",
        "Env": [f"{name}={value}" for name, value in first.items()],
        "Entrypoint": [*interpreter.argv, "-c", program],
        "Cmd": [],
        "Labels": dict(labels),
        "Tty": False,
        "OpenStdin": True,
        # When our connection ends, for whatever reason, so does its input, and with it the guest.
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "NetworkDisabled": asked.network is None,
        "ExposedPorts": {published.port: {} for published in asked.ports},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }


def _asked(spec: BoxSpec) -> ContainerSpec:
    return spec.container if spec.container is not None else ContainerSpec()


def _mounts(asked: ContainerSpec) -> list[dict[str, Any]]:
    return [
        {
            "Type": "bind",
            "Source": volume.source,
            "Target": volume.target,
            "ReadOnly": not volume.is_writable,
        }
        for volume in asked.volumes
    ]


def _lent(interpreter: Interpreter) -> list[dict[str, Any]]:
    return [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
        for source, target in interpreter.files
    ]


def _bindings(asked: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for published in asked.ports:
        number = "" if published.host_port is None else str(published.host_port)
        place = {"HostIp": published.host, "HostPort": number}
        found.setdefault(published.port, []).append(place)
    return found


def tmpfs(image: Image, spec: BoxSpec) -> dict[str, str]:
    """Return every writable place with its mount options."""
    limits = spec.limits
    asked = _asked(spec)
    user = 0 if asked.privileged else TENANT
    mounted = {volume.target for volume in asked.volumes}
    disk = f"size={limits.disk_mb}m,nr_inodes={limits.inodes}"
    own = f"uid={user},gid={user},mode=755"
    found = {
        "/tmp": f"{disk},mode=1777",  # noqa: S108 (inside the sandbox)
        "/var/tmp": f"{disk},mode=1777",  # noqa: S108 (as above)
        HOME: f"{disk},{own}",
        RUN_DIR: f"size={_RUN_DIR_MB}m,nr_inodes={_RUN_DIR_INODES},{own}",
    }
    # A declared volume would be a writable directory on the host's disk, without any bound.
    for place in (*image.volumes, spec.working_dir):
        found.setdefault(place, f"{disk},{own}")
    return {
        place: f"rw,exec,nosuid,nodev,{options}"
        for place, options in found.items()
        if place not in mounted
    }


def can_reset(spec: BoxSpec) -> bool:
    """Whether all that a tenant can change in such a sandbox can be seen and undone from inside."""
    asked = _asked(spec)
    is_shut = not asked.privileged and asked.network is None
    return is_shut and not any(volume.is_writable for volume in asked.volumes)


def _writable(image: Image, spec: BoxSpec) -> list[str]:
    """Return the mount points that a reset empties; the innermost first."""
    if not can_reset(spec):
        return []
    places = {*tmpfs(image, spec), "/dev/shm", "/dev/mqueue"}  # noqa: S108 (inside the sandbox)
    return sorted(places, reverse=True)


def check(spec: BoxSpec) -> None:
    """Raise `InvalidSpec` for what no container can be."""
    check_limits(spec.limits)
    place = spec.working_dir
    if not place.startswith("/") or place.rstrip("/") in ("", "/dev", "/proc", "/sys"):
        raise InvalidSpec(
            f"working_dir is {place!r}; it must be absolute and a directory of its own"
        )


def check_limits(limits: Limits) -> None:
    """Raise `InvalidSpec` for limits under which no sandbox can live."""
    for name, value, least in (
        ("memory_mb", limits.memory_mb, 16),
        ("pids", limits.pids, 4),
        ("disk_mb", limits.disk_mb, 1),
        ("inodes", limits.inodes, 64),
        ("open_files", limits.open_files, 16),
    ):
        if value < least:
            raise InvalidSpec(f"{name} is {value}; it must be at least {least}")
    if not limits.cpus >= 0.01:
        raise InvalidSpec(f"cpus is {limits.cpus}; it must be at least 0.01")


def check_change(old: Limits, new: Limits, held: Mapping[str, str]) -> None:
    """Raise `Unsupported` for what the engine cannot change of a container that runs.

    `held` is what `mechanisms` has said of it.
    """
    check_limits(new)
    for name in ("disk_mb", "inodes"):
        if getattr(old, name) != getattr(new, name):
            raise Unsupported(
                f"limits: {name} of a container cannot be changed at its hand-over: the engine "
                "mounts its writable places once, when it starts; make a pool for it"
            )
    for name, mechanism in (("memory_mb", "memory"), ("cpus", "cpus"), ("pids", "pids")):
        if getattr(old, name) != getattr(new, name) and held[mechanism].startswith(_NOTHING):
            raise Unsupported(f"limits: {name} cannot be changed: {held[mechanism]} hold it")


def mechanisms(engine: Mapping[str, Any]) -> dict[str, str]:
    """Say for each limit what holds it, from what the engine says about its host."""
    version = f"cgroup v{engine.get('CgroupVersion', '?')}"

    def held(is_held: object) -> str:
        return version if is_held else f"{_NOTHING}: the engine's host cannot"

    swap = "" if engine.get("SwapLimit") else ", swap not counted"
    return {
        "memory": held(engine.get("MemoryLimit")) + swap,
        "cpus": held(engine.get("CpuCfsQuota")),
        "pids": held(engine.get("PidsLimit")),
        "disk": "tmpfs size of each writable place, and memory for all of them together",
        "inodes": "tmpfs nr_inodes of each writable place",
        "open_files": "rlimit nofile, for each process by itself",
        "output": "what a run may keep, counted by its guest and by this process",
        "wall_time": "what a run may take, by its guest's clock; past it, by this process's",
    }
