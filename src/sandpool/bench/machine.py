"""Which machine, kernel and versions some figures were measured with."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

from sandpool.backends.native import doctor

_PACKAGES = ("sandpool", "anyio", "pydantic", "uvicorn", "uvloop", "numpy", "pandas")
_LIMITS = ("memory", "cpus", "pids", "disk")
"""Those whose mechanism changes what a sandbox costs."""


def describe() -> dict[str, str]:
    """Return what somebody who wants to compare figures has to know of this machine."""
    facts = doctor.examine().facts
    held = [f"{name} {facts[f'limit: {name}']}" for name in _LIMITS if f"limit: {name}" in facts]
    found = {
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "user": facts.get("user", ""),
        "python": platform.python_version(),
        "event loop": "asyncio",
        "limits held by": ", ".join(held),
        "cgroup attach": facts.get("cgroup attach", ""),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "load generator": "on the same processors as what it measures",
    }
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {name: fact for name, fact in found.items() if fact}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
