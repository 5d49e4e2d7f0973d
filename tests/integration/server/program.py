"""The server as a program of its own, to be stopped and killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(state_dir: Path, temp_dir: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run `sandpool serve` until the block ends; yields the program and its URL."""
    command = [sys.executable, "-m", "sandpool", "serve", "--port", "0", "--log-level", "warning"]
    program = subprocess.Popen(
        [*command, "--state-dir", str(state_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temp_dir), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        assert program.stdout is not None
        yield program, program.stdout.readline().split()[-1]
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()
