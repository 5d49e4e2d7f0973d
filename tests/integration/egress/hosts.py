"""Runs a driver on a host of its own (`world`), as root or as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

LIBRARY = '''
import asyncio, json, os, sys
from sandpool import LocalSandboxManager, PoolSpec
from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.models import Network
FACTS = json.loads(sys.argv[1])
TRIES = """
import json, socket, sys
def attempt(kind, host, port):
    try:
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(4)
            client.connect((host, port))
            client.send(b"x")
            return client.recv(64).decode() or "closed"
    except OSError as error:
        return type(error).__name__
kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
print(json.dumps([attempt(kinds[p], host, port) for p, host, port in json.loads(sys.argv[1])]))
"""
async def attempt(box, tries):
    done = await box.run_code(TRIES, RunOptions(argv=(json.dumps(tries),), timeout=25))
    assert done.exit_code == 0, done
    return json.loads(done.stdout)
async def run(box, code, *argv):
    done = await box.run_code(code, RunOptions(argv=argv, timeout=15))
    assert done.exit_code == 0, done
    return done.stdout
def ask_host(what):
    print(what, flush=True)
    sys.stdin.readline()
'''
"""What drivers begin with."""


@dataclass(frozen=True)
class Mode:
    """How sandboxes are to get at the world."""

    name: str
    is_user: bool = False
    forwards: bool = False
    programs: tuple[str, ...] = ()
    """Which of pasta and slirp4netns are to be found."""


VETH = Mode("veth", forwards=True)
ROOT_PASTA = Mode("root with pasta", programs=("pasta",))
PASTA = Mode("pasta", is_user=True, programs=("pasta",))
SLIRP = Mode("slirp4netns", is_user=True, programs=("slirp4netns",))


@dataclass(frozen=True)
class Outcome:
    """What came of a driver."""

    result: Any
    visits: list[tuple[str, str, int]]
    questions: list[str]
    left: Mapping[str, Sequence[str]]
    code: int
    errors: str


def run(
    mode: Mode,
    driver: str,
    facts: object = None,
    *,
    directory: Path,
    source: Path | None = None,
    killed: bool = False,
) -> Outcome:
    """Run a driver; `source` is where to find another sandpool, `killed` whether it wants to be."""
    directory = Path(tempfile.mkdtemp(dir=directory))
    # Beside what has to be there, only what the mode lets be found.
    programs = directory / "programs"
    programs.mkdir()
    for name in (*mode.programs, "unshare", "mount", "umount"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    namespaces = ["unshare", "--net", "--mount"]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    path = [str(ROOT), *([str(source)] if source is not None else [])]
    done = subprocess.run(
        [*namespaces, sys.executable, "-m", "tests.integration.egress.world"],
        input=json.dumps(
            {
                "driver": LIBRARY + driver,
                "facts": facts,
                "is_user": mode.is_user,
                "forwards": mode.forwards,
            }
        ),
        env={
            **os.environ,
            "PATH": str(programs),
            "PYTHONPATH": os.pathsep.join(reversed(path)),
            "TMPDIR": str(directory),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    if not killed:
        assert answer["code"] == 0, answer["errors"]
    return Outcome(
        result=json.loads(answer["printed"]) if answer["printed"] else None,
        visits=[tuple(visit) for visit in answer["visits"]],
        questions=answer["questions"],
        left=answer["left"],
        code=answer["code"],
        errors=answer["errors"],
    )
