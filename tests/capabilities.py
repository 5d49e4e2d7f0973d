"""What tests may need of a host, by marker, and how to find out whether it has it.

A test that needs what is missing is skipped, and says what is missing.  Where a run is meant to
have it, `SANDPOOL_REQUIRE` names it (`SANDPOOL_REQUIRE=native,root`) and the skip becomes a
failure.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandpool.backends.native import doctor
from sandpool.backends.native.egress import nft

VARIABLE = "SANDPOOL_REQUIRE"

THIRDPARTY = Path(__file__).parents[1] / ".venv-thirdparty"
"""The virtual environment with the clients of other systems."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FOR_EGRESS = ("pasta", "slirp4netns", "unshare", "mount")
_INSTALL_EGRESS = "apt-get install nftables passt slirp4netns util-linux mount"
_DOCKER_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Capability:
    """One thing that a host may lack."""

    name: str
    """How `SANDPOOL_REQUIRE` calls it."""
    missing: Callable[[], str | None]
    """Say what is missing; None if nothing is."""


@cache
def _missing_native() -> str | None:
    report = doctor.examine()
    return None if report.ok else "; ".join(report.problems)


@cache
def _missing_egress() -> str | None:
    programs = [name for name in _FOR_EGRESS if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} are missing (Debian: {_INSTALL_EGRESS})"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "this user may not open /dev/net/tun (as root: chmod 0666 /dev/net/tun)"
    missing = nft.missing()
    return None if missing is None else f"{missing} (Debian: {_INSTALL_EGRESS})"


def _missing_root() -> str | None:
    return None if os.geteuid() == 0 else f"uid 0 is needed, and this is uid {os.geteuid()}"


def _missing_unprivileged() -> str | None:
    return "a uid other than 0 is needed" if os.geteuid() == 0 else None


@cache
def _missing_docker() -> str | None:
    address = os.environ.get("DOCKER_HOST") or _DOCKER_SOCKET
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.removeprefix("unix://"))
        except OSError as error:
            return f"no Docker Engine answers at {address} ({error.strerror})"
    return None


@cache
def _missing_ray() -> str | None:
    return None if importlib.util.find_spec("ray") else "Ray is not installed"


def _missing_thirdparty() -> str | None:
    if (THIRDPARTY / ".installed").exists():
        return None
    return "the clients of other systems are not installed; `make thirdparty` does it"


def find_browser() -> str | None:
    """Return the path of a Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _missing_browser() -> str | None:
    if find_browser() is not None:
        return None
    return "there is no Chromium (Debian: apt-get install chromium)"


def _missing_network() -> str | None:
    # Looking would mean calling out, which no test run should do unasked.
    return None if "network" in required() else f"a network is used only with {VARIABLE}=network"


BY_MARKER = {
    "namespaces": Capability("native", _missing_native),
    "root": Capability("root", _missing_root),
    "unprivileged": Capability("unprivileged", _missing_unprivileged),
    "docker": Capability("docker", _missing_docker),
    "ray": Capability("ray", _missing_ray),
    "network": Capability("network", _missing_network),
    "thirdparty": Capability("thirdparty", _missing_thirdparty),
    "egress": Capability("egress", _missing_egress),
    "browser": Capability("browser", _missing_browser),
}


def required() -> frozenset[str]:
    """Return the capabilities that this run must have; raise ValueError for an unknown name."""
    names = frozenset(filter(None, os.environ.get(VARIABLE, "").split(",")))
    known = {capability.name for capability in BY_MARKER.values()}
    if unknown := names - known:
        raise ValueError(
            f"{VARIABLE} names {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    return names
