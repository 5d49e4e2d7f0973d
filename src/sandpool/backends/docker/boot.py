"""Where a container's first process begins: it receives the guest over its input and becomes it.

The container is started as `python3 -c STUB`.  The stub reads this file's text from its input and
runs it; what follows on the input says what to do:

    compile   import what is to be preloaded, compile the guest's modules, write them to the output;
              done once for an image, because marshalled code fits one version of Python only
    serve     be the guest, of which the modules come with the order

Nothing of ours lies in the image's file system, so every image and every runtime will do.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import marshal
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

_PACKAGE = "_sandpool_guest"


def _read(size: int) -> bytes:
    """Read exactly `size` bytes: what comes after them is for the guest."""
    pieces: list[bytes] = []
    while size:
        piece = os.read(0, size)
        if not piece:
            os._exit(0)  # nobody wants us any more
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _read_part() -> bytes:
    return _read(int.from_bytes(_read(4), "big"))


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the guest's modules from memory."""

    def __init__(self, codes: dict[str, Any]) -> None:
        self._codes = codes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._codes:
            return None
        is_package = fullname == _PACKAGE
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._codes[module.__name__], module.__dict__)  # noqa: S102 (it is the guest)


def _preload(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _compile(order: dict[str, Any]) -> NoReturn:
    """Answer with what this image is and with the guest as code; order: sources, preload."""
    failure = None
    try:
        _preload(order["preload"])
    except BaseException as error:  # noqa: BLE001 (an import may raise anything, even SystemExit)
        failure = f"{type(error).__name__}: {error}"
    codes = {
        name: compile(source, f"<sandpool {name}>", "exec", dont_inherit=True)
        for name, source in order["sources"].items()
    }
    answer = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208 (pathlib is an import more)
        "failure": failure,
    }
    for part in (json.dumps(answer).encode(), marshal.dumps(codes)):
        _write(len(part).to_bytes(4, "big") + part)
    os._exit(0)


def _serve(order: dict[str, Any]) -> None:
    """Be the guest; order: preload, settings."""
    finder = _Finder(marshal.loads(_read_part()))  # noqa: S302 (the same image made it)
    sys.meta_path.insert(0, finder)
    main = importlib.import_module(_PACKAGE + ".main")
    importlib.import_module(_PACKAGE + ".training")
    sys.meta_path.remove(finder)
    _preload(order["preload"])
    gc.collect()
    main.serve(0, 1, main.Settings(order["settings"]))


def begin() -> None:
    """Do as the input says."""
    # The stub was started with `-c`, which puts the working directory there.
    if sys.path and not sys.path[0]:
        del sys.path[0]
    order = json.loads(_read_part())
    if order["do"] == "compile":
        _compile(order)
    _serve(order)


if __name__ == "__main__":
    begin()
