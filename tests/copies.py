"""A copy of sandpool that a test may change, and programs that use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import sandpool


def copy_sandpool(directory: Path) -> Path:
    """Copy the package into `directory`; return the copy."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(Path(sandpool.__file__).parent, directory / "sandpool", ignore=ignored)


def run_with_copy(directory: Path, program: str, *argv: str, stdin: str = "") -> str:
    """Run a program that finds the copy in `directory`; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        input=stdin,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
