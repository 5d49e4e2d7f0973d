"""What is sent to a new container's input: how to begin, and then the guest.

Pure but for reading our own package's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sandpool.backends.docker.interpreter import OWN, Interpreter
from sandpool.errors import BackendUnavailable

_HERE = Path(__file__).resolve().parent
_GUEST = _HERE.parents[1] / "guest"
_PACKAGE = "_sandpool_guest"

STUB = (
    "import os\n"
    "def r(n):\n"
    " b=b''\n"
    " while len(b)<n:\n"
    "  p=os.read(0,n-len(b))\n"
    "  if not p:os._exit(0)\n"
    "  b+=p\n"
    " return b\n"
    "exec(compile(r(int.from_bytes(r(4),'big')),'<sandpool>','exec'))\n"
)
"""The program that a container is started with; it takes the rest from its input."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one image's Python made of the guest."""

    python: str
    """Its version."""
    executable: str
    """Its path inside the image."""
    threads: int
    """How many threads there are once all is imported that is to be preloaded."""
    failure: str | None
    """Why something could not be preloaded."""
    code: bytes
    """The guest's modules, marshalled; of use to this Python only, and never loaded by us."""
    interpreter: Interpreter = OWN
    """What compiled it, and so what runs it."""


def _part(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@cache
def _boot() -> bytes:
    return _part((_HERE / "boot.py").read_bytes())


@cache
def _sources() -> Mapping[str, str]:
    found = {f"{_PACKAGE}.{path.stem}": path.read_text() for path in sorted(_GUEST.glob("*.py"))}
    found[_PACKAGE] = found.pop(f"{_PACKAGE}.__init__")
    return found


def compile_order(preload: Sequence[str]) -> bytes:
    """Return the input of a container that compiles the guest."""
    order = {"do": "compile", "preload": list(preload), "sources": dict(_sources())}
    return _boot() + _part(json.dumps(order).encode())


def serve_order(prepared: Prepared, preload: Sequence[str], settings: Mapping[str, Any]) -> bytes:
    """Return the input of a container up to the first frame for its guest."""
    order = {"do": "serve", "preload": list(preload), "settings": dict(settings)}
    return _boot() + _part(json.dumps(order).encode()) + _part(prepared.code)


def read_prepared(output: bytes, interpreter: Interpreter) -> Prepared:
    """Return what a compiling container wrote; `BackendUnavailable` if it is not that."""
    answer, rest = _split(output)
    code, rest = _split(rest)
    try:
        found = json.loads(answer)
        prepared = Prepared(
            python=str(found["python"]),
            executable=str(found["executable"]),
            threads=int(found["threads"]),
            failure=None if found["failure"] is None else str(found["failure"]),
            code=code,
            interpreter=interpreter,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackendUnavailable("the image's Python did not compile the guest") from error
    return prepared


def _split(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size:
        raise BackendUnavailable("the image's Python broke off while it compiled the guest")
    return data[4 : 4 + size], data[4 + size :]
