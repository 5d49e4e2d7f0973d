"""C programs of tests, built so that they end where they read or write what is not theirs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

_CHECKED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compile_with_sanitizers(source: Path, made: Path, headers: Path) -> None:
    """Compile `source` to the program `made`; skips the test where that cannot be done."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    if shutil.which(compiler[0]) is None:
        compiler = ["cc"]
    if shutil.which(compiler[0]) is None:
        pytest.skip("this host lacks a C compiler")
    nothing = subprocess.run(
        [*compiler, *_CHECKED, "-x", "c", "-", "-o", str(made)],
        input="int main(void) { return 0; }",
        capture_output=True,
        text=True,
        check=False,
    )
    if nothing.returncode:
        pytest.skip("this host lacks the runtime of the compiler's sanitizers")
    flags = ["-std=gnu11", "-O1", "-g", "-Wno-unused-function", f"-I{headers}", "-o", str(made)]
    subprocess.run([*compiler, *flags, *_CHECKED, str(source)], check=True)
