"""A server of our own to measure, and the client that measures it, both over loopback.

The server is a process of its own, as it is in use; the caller shares its processors.  It is the
standard library's blocking client, which adds about a tenth of a millisecond to a call.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from sandpool.errors import BackendUnavailable, SandpoolError

_NEEDED = ("fastapi", "httptools", "uvicorn")
_TIMEOUT = 60.0
_IDLE = 2.0
"""Seconds after which a connection that was not used is not trusted to be open."""
_PATIENCE = 60.0
"""Seconds that a server has to end."""


class Caller:
    """One keep-alive connection to a server."""

    def __init__(self, url: str) -> None:
        """Connect with the first call."""
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT
        )
        self._used = time.monotonic()

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return an answer's JSON, or its bytes; `SandpoolError` for any but a success."""
        data = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named["Content-Type"] = "application/json"
        if time.monotonic() - self._used > _IDLE:
            self._connection.close()  # the server may be about to; the request opens it anew
        self._connection.request(method, path, data, named)
        answer = self._connection.getresponse()
        content = answer.read()
        self._used = time.monotonic()
        if answer.status >= 300:
            raise SandpoolError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content[:1] in (b"{", b"[", b'"') else content

    def timed(self, method: str, path: str, body: object = None) -> tuple[float, Any]:
        """Return the seconds that a call took, and its answer."""
        begun = time.perf_counter()
        answer = self.call(method, path, body)
        return time.perf_counter() - begun, answer

    def make_pool(self, **spec: object) -> None:
        """Make a pool and wait until it is full."""
        self.call("POST", "/v1/pools", spec)
        self.fill(str(spec["name"]))

    def fill(self, pool: str) -> None:
        """Wait until a pool is full."""
        self.call("POST", f"/v1/pools/{pool}/warm")

    def remove_pool(self, pool: str) -> None:
        """Remove a pool and all that was lent from it."""
        self.call("DELETE", f"/v1/pools/{pool}?force=true")

    def borrow(self, pool: str) -> str:
        """Borrow a sandbox, run a program in it, and return the lease's id."""
        lease = self.call("POST", f"/v1/pools/{pool}/lease", {})
        path = f"/v1/sandboxes/{lease['sandbox']['id']}/code"
        result = self.call("POST", path, {"code": "print(1)"}, X_Sandpool_Lease=lease["lease_id"])
        if result["stdout"] != "1\n":
            raise SandpoolError(f"a sandbox answered {result!r}")
        return str(lease["lease_id"])

    def give_back(self, lease: str) -> None:
        """End a lease."""
        self.call("DELETE", f"/v1/leases/{lease}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def connected(url: str) -> closing[Caller]:
    """Return a caller for the length of a `with` block."""
    return closing(Caller(url))


@contextmanager
def serving(state: str | None = None) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Run a server, and yield its address and its process; `BackendUnavailable`."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"a server needs {' and '.join(missing)}")
    with ExitStack() as stack:
        directory = state or stack.enter_context(tempfile.TemporaryDirectory())
        command = [sys.executable, "-m", "sandpool", "serve", "--port", "0"]
        command += ["--state-dir", directory, "--log-level", "error"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " on " not in line:
                raise BackendUnavailable("the server to be measured did not start")
            yield line.rpartition(" ")[2].strip(), process
        finally:
            end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a server by asking, and by force if it does not end in time."""
    process.terminate()
    try:
        process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def call_at_once(
    url: str, clients: int, count: int, work: Callable[[Caller, int], object]
) -> float:
    """Let clients call `work` with each number below `count`, and return the seconds it took."""
    numbers = iter(range(count))

    def go_on(own: Caller) -> None:
        with closing(own):
            for number in numbers:
                work(own, number)

    callers = [Caller(url) for _ in range(clients)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(go_on, callers))
    return time.perf_counter() - begun
