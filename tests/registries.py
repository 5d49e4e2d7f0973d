"""Debian's docker-registry on loopback, for as long as a test needs one."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"{more}}}
"""


@contextmanager
def running(directory: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run a registry; its host and port.  `tls` is a certificate and its key."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no docker-registry (Debian: apt-get install docker-registry)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    root = directory / "registry"
    keys = "" if tls is None else f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}"
    configuration = directory / "registry.yml"
    configuration.write_text(_CONFIGURATION.format(root=root, port=port, more=keys))
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(configuration)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail("docker-registry ended before it served")
