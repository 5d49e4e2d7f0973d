"""A server of our own to measure, and the client that measures it, both over loopback.

The server is a process of its own, as it is in use; the caller shares its processors.  It sends a
request in one piece, and leaves the answer to a parser in C.  The standard library's client takes
0.16 ms longer for a call now and then, and that would be measured, too.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httptools

from sandpool.errors import BackendUnavailable, SandpoolError

_NEEDED = ("fastapi", "httptools", "uvicorn")
_TIMEOUT = 60.0
_PIECE = 16 * 1024
_IDLE = 2.0
"""Seconds after which a connection that was not used is not trusted to be open."""
_PATIENCE = 60.0
"""Seconds that a server has to end."""


class _Answer:
    """What a parser tells of an answer."""

    def __init__(self) -> None:
        self.content = b""
        self.is_whole = False

    def on_body(self, piece: bytes) -> None:
        """Hear of a piece of the body; called by the parser, as what follows."""
        self.content += piece

    def on_message_complete(self) -> None:
        """Hear that this was all."""
        self.is_whole = True


class Caller:
    """One keep-alive connection to a server."""

    def __init__(self, url: str) -> None:
        """Connect with the first call."""
        parts = urlsplit(url)
        self._place = parts.hostname or "", parts.port or 80
        self._socket: socket.socket | None = None
        self._used = 0.0

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return an answer's JSON, or its bytes; `SandpoolError` for any but a success.

        Raises `OSError` and `HttpParserError` where there is no whole answer.
        """
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        host, port = self._place
        first = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}"
        try:
            status, content = self._ask("\r\n".join([first, *lines, "\r\n"]).encode() + data)
        except BaseException:
            self.close()  # the rest of an answer would be taken for that to the next call
            raise
        if status >= 300:
            raise SandpoolError(f"{method} {path}: {status} {content[:300]!r}")
        return json.loads(content) if content[:1] in (b"{", b"[", b'"') else content

    def _ask(self, question: bytes) -> tuple[int, bytes]:
        if time.monotonic() - self._used > _IDLE:
            self.close()  # the server may be about to
        if self._socket is None:
            self._socket = socket.create_connection(self._place, _TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(question)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.is_whole:
            data = self._socket.recv(_PIECE)
            if not data:
                raise ConnectionResetError("the server closed the connection in its answer")
            parser.feed_data(data)
        self._used = time.monotonic()
        if not parser.should_keep_alive():
            self.close()
        return parser.get_status_code(), answer.content

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
        if self._socket is not None:
            self._socket.close()
            self._socket = None


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
