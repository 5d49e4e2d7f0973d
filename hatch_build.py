"""Compiles what a template has in C where there is a C compiler; else Python does the same.

What comes of it is linked to nothing: it belongs to an architecture, and to no version of Python
or of a C library.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_TEMPLATE = Path("src/sandpool/backends/native/template")
_SOURCES = "branch.c", "forking.c", "plain.c", "request.c"
_FLAGS = (
    *("-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion"),
    # No C library: what an image has may be another one, or another version.
    *("-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-fno-stack-protector"),
    *("-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,--build-id=none"),
)


class BranchHook(BuildHookInterface):
    """Adds `libbranch.so.1` to a wheel, and to the tree of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, unless this is no Linux or has no compiler; a compiler's error is told."""
        compiler = shlex.split(os.environ.get("CC", "cc"))
        made = _TEMPLATE / "libbranch.so.1"
        root = Path(self.root)
        (root / made).unlink(missing_ok=True)
        if sys.platform != "linux" or not compiler or shutil.which(compiler[0]) is None:
            return
        sources = [str(_TEMPLATE / name) for name in _SOURCES]
        done = subprocess.run(  # noqa: S603 (whoever installs chooses the compiler)
            [*compiler, *_FLAGS, "-o", str(made), *sources],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.app.display_warning(f"libbranch.so.1 was not compiled: {done.stderr}")
            return
        build_data["artifacts"].append(str(made))
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
