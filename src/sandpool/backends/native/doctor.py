"""What this host can do for native sandboxes, found by looking and by trying, with remedies."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandpool.backends.base import Limits
from sandpool.backends.native import cgroups, limits, seccomp
from sandpool.backends.native.egress import nft, uplink

_OLDEST_KERNEL = (5, 12)
_ALTERNATIVE = "Or use the Docker backend, or run sandpool on a Linux machine or virtual machine."
_TRIAL = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    ok: bool
    """Whether native sandboxes can run here."""
    problems: list[str] = field(default_factory=list[str])
    """Why not, or what is weaker than it could be."""
    remedies: list[str] = field(default_factory=list[str])
    """What to do about it."""
    facts: dict[str, str] = field(default_factory=dict[str, str])


def examine() -> Report:
    """Look at this host; makes a namespace and lets it go, and changes nothing else."""
    if sys.platform != "linux":
        return Report(
            False,
            [f"native sandboxes need Linux namespaces, and this is {platform.system()}"],
            [_ALTERNATIVE],
            {"system": platform.platform()},
        )
    problems: list[str] = []
    remedies: list[str] = []
    facts = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
    }
    if _kernel_version() < _OLDEST_KERNEL:
        problems.append(f"the kernel is {platform.release()}, older than 5.12 (mount_setattr)")
        remedies.append("Boot a kernel of 5.12 or later.")
    refused, found = _try_namespaces()
    facts["namespaces"] = "usable" if refused is None else f"refused: {refused}"
    facts |= found
    if refused is not None:
        problems.append(f"new namespaces are refused ({refused})")
        remedies += _namespace_remedies()
    missing = seccomp.missing()
    facts["seccomp"] = "libseccomp" if missing is None else missing
    if missing is not None:
        problems.append(missing)
        remedies.append("Install libseccomp (Debian: apt-get install libseccomp2).")
    if problems:
        return Report(False, problems, [*remedies, _ALTERNATIVE], facts)
    facts |= _limit_facts(problems, remedies)
    facts["egress"] = _egress()
    return Report(True, problems, remedies, facts)


def _limit_facts(problems: list[str], remedies: list[str]) -> dict[str, str]:
    found = cgroups.find()
    if found.missing is not None:
        problems.append(
            f"memory and processor limits hold for single processes only: {found.missing}"
        )
        remedies.append("Run as root or in a delegated cgroup to limit whole sandboxes.")
    held = {
        name: f"cgroup v{place.version}"
        for place in found.hierarchies
        for name in place.controllers
    }
    facts = {f"limit: {name}": how for name, how in limits.mechanisms(held).items()}
    facts["cgroup attach"] = _attach_mode()
    assert limits.rlimits(Limits(), found.controllers)
    return facts


def _egress() -> str:
    """Say how sandboxes can have a network, or what is missing; most need none."""
    missing = nft.missing()
    if missing is not None:
        return f"none: {missing}; apt-get install nftables"
    is_root = os.geteuid() == 0
    chains: list[dict[str, Any]] = []
    if is_root:
        try:
            with closing(nft.Tables()) as tables:
                chains = tables.chains()
        except OSError as error:
            return f"none: {error}"
    choice = uplink.choose(uplink.look(is_root, chains))
    return f"nftables and {choice.kind}" if choice.problem is None else f"none: {choice.problem}"


def _attach_mode() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " cgroup" in line and "favordynmods" in line:
            return "favordynmods (fast single attaches)"
    return "default (about 7 ms for a single attach; sandpool attaches in batches, at refill)"


def _kernel_version() -> tuple[int, int]:
    numbers = platform.release().split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return 0, 0


def _try_namespaces() -> tuple[str | None, dict[str, str]]:
    """Make the namespaces that a template makes, in a child, and look there for what it can use.

    Returns why that failed, if it did, and what was found.
    """
    unknown = {"landlock": "unknown", "forks": "unknown"}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from template import branch, kernel as k\n"
        "try:\n"
        "    k.unshare(int(sys.argv[2]))\n"
        "    k.unshare(k.CLONE_NEWPID | k.CLONE_NEWNET | k.CLONE_NEWIPC | k.CLONE_NEWUTS)\n"
        "except OSError as error:\n"
        "    sys.exit(str(error))\n"
        "print('scopes' if k.has_landlock_scopes() else 'no scopes in this kernel')\n"
        "print('compiled' if branch.is_compiled() else 'in Python: installed without a compiler')\n"
    )
    user = 0 if os.geteuid() == 0 else 0x1000_0000
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter and program)
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                program,
                str(Path(__file__).parent),
                str(user | 0x0002_0000),
            ],
            capture_output=True,
            text=True,
            timeout=_TRIAL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), unknown
    if done.returncode == 0:
        return None, dict(zip(unknown, done.stdout.splitlines(), strict=True))
    return done.stderr.strip() or f"exit {done.returncode}", unknown


def _namespace_remedies() -> list[str]:
    remedies: list[str] = []
    for path, bad, command in (
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ):
        try:
            value = (Path("/proc/sys") / path).read_text().strip()
        except OSError:
            continue
        if value == bad:
            remedies.append(f"As root: {command}.")
    if Path("/.dockerenv").exists() or shutil.which("systemd-detect-virt") is None:
        remedies.append(
            "In a container: allow it CAP_SYS_ADMIN, or unconfined seccomp and AppArmor."
        )
    return remedies
