"""What there is besides a pool: the time until each has printed something, on the same machine.

Every one prints 1 with an interpreter of the host, or of an image's where it needs an image.  They
are tried once before they count, so that one that does not work here is left out with a reason.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sandpool.errors import BackendUnavailable

COLD = "cold `python3 -I -S`"
FORK = "bare fork of an equal interpreter"
BUBBLEWRAP = "bubblewrap and `python3 -I -S`"
RUNC = "runc and `python3 -I -S`"
DOCKER = "`docker run` and `python3 -I -S`"

IMAGE = "python:3.11-slim"
"""What containers are made from."""

Measure = Callable[[], float]
"""Measures once, and returns the seconds until the first output."""

_ARGUMENTS = ("-I", "-S", "-c", "print(1)")
_BOUND = 60.0
_FORKER = textwrap.dedent(
    """
    import gc, os, sys, time
    import base64, ctypes, heapq, importlib.util, json, marshal, select, signal, socket, struct
    gc.freeze()
    for _ in sys.stdin:
        read, write = os.pipe()
        begun = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os.dup2(write, 1)
            print(1, flush=True)
            os._exit(0)
        os.close(write)
        os.read(read, 1)
        print(time.perf_counter() - begun, flush=True)
        os.close(read)
        os.waitpid(pid, 0)
    """
)
"""Forks an interpreter of about a guest's size for every line of its input, and says how long the
first output took."""


class Baselines:
    """Those that work here, and why the others do not."""

    def __init__(self) -> None:
        """Begin with none; `open_baselines` tries them."""
        self.measures: dict[str, Measure] = {}
        self.left_out: list[str] = []

    def try_out(self, name: str, measure: Measure) -> None:
        """Measure once, and keep it if that worked."""
        try:
            measure()
        except (OSError, subprocess.SubprocessError, BackendUnavailable) as error:
            self.left_out.append(f"left out: {name}: {error}")
        else:
            self.measures[name] = measure


@contextmanager
def open_baselines(*names: str) -> Generator[Baselines]:
    """Start what these need, try them, and end them after the block."""
    found = Baselines()
    with ExitStack() as stack:
        for name in names:
            try:
                measure = stack.enter_context(_OPENERS[name]())
            except (OSError, subprocess.SubprocessError, BackendUnavailable) as error:
                found.left_out.append(f"left out: {name}: {error}")
            else:
                found.try_out(name, measure)
        yield found


def until_output(command: tuple[str, ...]) -> float:
    """Return the seconds from starting a command to its first output; `BackendUnavailable`."""
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        seen = process.stdout.read(1)
        took = time.perf_counter() - begun
        _, errors = process.communicate(timeout=_BOUND)
    if seen != b"1":
        lines = errors.decode(errors="replace").strip().splitlines()
        raise BackendUnavailable(f"{Path(command[0]).name}: {(lines or ['it said nothing'])[0]}")
    return took


@contextmanager
def _cold() -> Generator[Measure]:
    yield lambda: until_output((sys.executable, *_ARGUMENTS))


@contextmanager
def _fork() -> Generator[Measure]:
    with subprocess.Popen(
        [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forker:
        assert forker.stdin is not None
        assert forker.stdout is not None
        given, told = forker.stdin, forker.stdout

        def measure() -> float:
            given.write("\n")
            given.flush()
            return float(told.readline())

        try:
            yield measure
        finally:
            forker.kill()


@contextmanager
def _bubblewrap() -> Generator[Measure]:
    command = (
        _found("bwrap"),
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"),
        *(sys.executable, *_ARGUMENTS),
    )
    yield lambda: until_output(command)


@contextmanager
def _runc() -> Generator[Measure]:
    runc = _found("runc")
    with tempfile.TemporaryDirectory(prefix="sandpool-bench-") as place:
        subprocess.run([runc, "spec"], cwd=place, check=True, capture_output=True, timeout=_BOUND)
        path = Path(place, "config.json")
        path.write_text(json.dumps(_bundle(json.loads(path.read_text()))))
        Path(place, "rootfs").mkdir()
        # Its records elsewhere than those of an engine that runs here.
        base = (runc, "--root", f"{place}/state", "run", "--bundle", place)
        yield lambda: until_output((*base, f"bench-{secrets.token_hex(4)}"))


def _bundle(config: dict[str, Any]) -> dict[str, Any]:
    """Return `runc`'s own default bundle with this host's programs, read-only, in its root."""
    prefixes = {"/usr", "/bin", "/lib", "/lib64", "/etc", sys.prefix, sys.base_prefix}
    binds = [
        {
            "destination": path,
            "type": "bind",
            "source": os.path.realpath(path),
            "options": ["rbind", "ro"],
        }
        for path in sorted(prefixes)
        if Path(path).exists()
    ]
    program = {"terminal": False, "args": [sys.executable, *_ARGUMENTS]}
    return {
        **config,
        "process": {**config["process"], **program},
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [*config["mounts"], *binds],
    }


@contextmanager
def _docker() -> Generator[Measure]:
    docker = _found("docker")
    run = (docker, "run", "--rm", "--network", "none", "--pull", "never", IMAGE)
    yield lambda: until_output((*run, "python3", *_ARGUMENTS))


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise BackendUnavailable(f"{program} is not installed")
    return path


_OPENERS: Mapping[str, Callable[[], AbstractContextManager[Measure]]] = MappingProxyType(
    {COLD: _cold, FORK: _fork, BUBBLEWRAP: _bubblewrap, RUNC: _runc, DOCKER: _docker}
)
