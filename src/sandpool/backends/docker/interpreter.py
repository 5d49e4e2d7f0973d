"""What runs the guest in a container: the image's own Python, or this machine's if it has none.

A Python of this machine is lent read-only, with its own loader and libraries, so that whatever C
library an image has, or none, does not matter.  It runs the guest only: in such a sandbox there are
commands and files, and running Python code is refused.  It takes an engine that sees this machine's
files, as one on a Unix socket mostly does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sandpool.errors import BackendUnavailable

_LIBRARY = Path(__file__).resolve().parents[2]
_HOME = "/.sandpool/python"
_LIBRARIES = "/.sandpool/lib"
_TIMEOUT = 30.0

_LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import base64, importlib, marshal, guest.main, guest.training
with open("/proc/self/maps") as maps:
    paths = {line.split(None, 5)[5].strip() for line in maps if line.count("/")}
print(json.dumps(sorted(path for path in paths if path.startswith("/"))))
"""
"""Tells what the guest has loaded once all is imported."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How a container's first process is started, and what of this machine it needs for that."""

    argv: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    """Files and directories of this machine, and where they are shown."""
    hidden: tuple[str, ...] = ()
    """Directories among them that are covered."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    is_lent: bool = False


OWN = Interpreter(("python3",))
"""The image's own, on its PATH."""


@cache
def lend() -> Interpreter:
    """Return this machine's; `BackendUnavailable` where it cannot be found out what it consists of.

    Looking takes a moment, once for the program.
    """
    try:
        return _look()
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        raise BackendUnavailable(f"this machine's Python cannot be lent: {error}") from error


def _look() -> Interpreter:
    program = os.path.realpath(sys.executable)
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    loaded: list[str] = json.loads(_run(program, "-I", "-S", "-c", _LOOK, str(_LIBRARY)))
    loader = next(path for path in loaded if Path(path).name.startswith("ld-"))
    libraries: dict[str, str] = {}
    for path in loaded:
        if path == program or ".so" in Path(path).name:
            libraries |= _needed(loader, path)
    files = [(program, f"{_HOME}/bin/python3"), (loader, f"{_LIBRARIES}/loader")]
    files.append((str(standard), f"{_HOME}/lib/{standard.name}"))
    files += [(path, f"{_LIBRARIES}/{name}") for name, path in sorted(libraries.items())]
    packages = ("site-packages", "dist-packages", "test")
    return Interpreter(
        argv=(f"{_LIBRARIES}/loader", "--library-path", _LIBRARIES, f"{_HOME}/bin/python3", "-S"),
        files=tuple((os.path.realpath(source), target) for source, target in files),
        hidden=tuple(
            f"{_HOME}/lib/{standard.name}/{name}" for name in packages if (standard / name).is_dir()
        ),
        env={"PYTHONHOME": _HOME, "PYTHONDONTWRITEBYTECODE": "1"},
        is_lent=True,
    )


def _needed(loader: str, path: str) -> dict[str, str]:
    """Return the libraries that a file needs, by the names that it knows them by."""
    found: dict[str, str] = {}
    for line in _run(loader, "--list", path, check=False).splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        place = rest.partition(" (")[0]
        # A loader is also named by its path; it has a place of its own.
        if arrow and place.startswith("/") and "/" not in name:
            found[name] = place
    return found


def _run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(  # noqa: S603 (our own interpreter, and its loader)
        argv, capture_output=True, text=True, timeout=_TIMEOUT, check=check, env={}
    )
    return done.stdout
