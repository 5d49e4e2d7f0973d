"""`sandpool bench --suite server`: what a server costs, over keep-alive connections on loopback.

The server is a process of its own, as it is in use; the caller shares its processors.  It is the
standard library's blocking client, which adds about a tenth of a millisecond to a call.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sandpool.cli.report import Result, compare, ms, percentile
from sandpool.errors import BackendUnavailable, SandpoolError

_IDLE = 500
"""Sandboxes that wait while the server's use of processors is measured; fewer in a short run."""
_IDLE_SECONDS = 10.0
_CLIENTS = 16
_LIFETIME = 6.0
_MIN_REMAINING = 5.0
_PAUSE = 0.5
_PROXY_CLIENTS = 8

_ECHO = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        self.wfile.flush()
    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""
"""Sends an answer at once: in two pieces, the second would wait for the first one's receipt."""


class Caller:
    """One keep-alive connection to the server."""

    def __init__(self, url: str) -> None:
        """Connect with the first call."""
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return an answer's JSON; `SandpoolError` for any but a success."""
        data = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named["Content-Type"] = "application/json"
        self._connection.request(method, path, data, named)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise SandpoolError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content[:1] in (b"{", b"[", b'"') else content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def measure(*, samples: int, cycles: int) -> list[Result]:
    """Run the suite; `SandpoolError` if the server does not do what it should."""
    results: list[Result] = []
    with _serving() as (url, _):
        caller = Caller(url)
        results += _measure_claims(caller, samples)
        results += _measure_runs(caller, samples)
        results += _measure_borrows(url, caller, cycles)
        results += measure_lives(url, cycles)
        results += _measure_services(url, caller, samples)
        caller.close()
    with _serving() as (url, process):
        results += _measure_idle(url, process.pid, min(_IDLE, 5 * samples))
    return results


@contextmanager
def _serving() -> Generator[tuple[str, subprocess.Popen[str]]]:
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "sandpool", "serve", "--port", "0", "--state-dir", state]
        process = subprocess.Popen(
            [*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " on " not in line:
                raise BackendUnavailable("the server to be measured did not start")
            yield line.rpartition(" ")[2].strip(), process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _measure_claims(caller: Caller, samples: int) -> list[Result]:
    _make_pool(caller, name="claims", warm=8, max=64)
    times: list[float] = []
    for _ in range(samples):
        caller.call("POST", "/v1/pools/claims/warm")
        begun = time.perf_counter()
        claimed = caller.call("POST", "/v1/pools/claims/claim", {})
        times.append(time.perf_counter() - begun)
        caller.call("DELETE", f"/v1/sandboxes/{claimed['id']}")
    caller.call("DELETE", "/v1/pools/claims?force=true")
    middle = statistics.median(times) * 1000
    return [
        compare("claim over HTTP, p50", middle, "≤ 1.5 ms", lambda value: value <= 1.5, "ms"),
        Result("the same, p99", ms(percentile(times, 0.99)), "ms"),
    ]


def _measure_runs(caller: Caller, samples: int) -> list[Result]:
    _make_pool(caller, name="runs", warm=4, max=64)
    times: list[float] = []
    for _ in range(samples):
        caller.call("POST", "/v1/pools/runs/warm")
        begun = time.perf_counter()
        lease = _borrow(caller, "runs")
        times.append(time.perf_counter() - begun)
        _give_back(caller, lease)
    caller.call("DELETE", "/v1/pools/runs?force=true")
    middle = statistics.median(times) * 1000
    return [
        compare("borrow and print(1), p50", middle, "≤ 4 ms", lambda value: value <= 4, "ms"),
        Result("the same, p99", ms(percentile(times, 0.99)), "ms"),
    ]


def _measure_borrows(url: str, caller: Caller, cycles: int) -> list[Result]:
    _make_pool(caller, name="borrows", warm=_CLIENTS, max=4 * _CLIENTS, builders=8)
    caller.call("POST", "/v1/pools/borrows/warm")
    callers = [Caller(url) for _ in range(_CLIENTS)]
    numbers = iter(range(cycles))

    def work(own: Caller) -> None:
        for _ in numbers:
            _give_back(own, _borrow(own, "borrows"))
        own.close()

    begun = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        list(threads.map(work, callers))
    rate = cycles / (time.perf_counter() - begun)
    caller.call("DELETE", "/v1/pools/borrows?force=true")
    name = f"fresh borrows, {_CLIENTS} clients"
    return [compare(name, rate, "≥ 150 /s", lambda value: value >= 150, "/s")]


def measure_lives(url: str, count: int) -> list[Result]:
    """Claim `count` sandboxes that live for a short time, and count those that have too little."""
    caller = Caller(url)
    _make_pool(
        caller,
        name="lives",
        warm=_CLIENTS,
        max=8 * _CLIENTS,
        builders=8,
        lifetime=_LIFETIME,
        min_remaining=_MIN_REMAINING,
    )
    callers = [Caller(url) for _ in range(_CLIENTS)]
    numbers = iter(range(count))
    short: list[float] = []

    def work(own: Caller) -> None:
        for number in numbers:
            if number % 64 == 0:
                time.sleep(_PAUSE)  # long enough for the stock to grow old
            claimed = own.call("POST", "/v1/pools/lives/claim", {"check_health": True})
            if claimed["remaining"] < _MIN_REMAINING:
                short.append(claimed["remaining"])
            own.call("DELETE", f"/v1/sandboxes/{claimed['id']}")
        own.close()

    with ThreadPoolExecutor(_CLIENTS) as threads:
        list(threads.map(work, callers))
    caller.call("DELETE", "/v1/pools/lives?force=true")
    caller.close()
    name = f"claims with too little time left, of {count}"
    return [compare(name, len(short), "0", lambda value: value == 0, "")]


def _measure_services(url: str, caller: Caller, samples: int) -> list[Result]:
    _make_pool(
        caller,
        name="services",
        entrypoint=["python3", "-c", _ECHO],
        ports=[8080],
        health_check={"kind": "http"},
        warm=4,
        max=64,
    )
    claims: list[float] = []
    path = ""
    for _ in range(samples):
        caller.call("POST", "/v1/pools/services/warm")
        begun = time.perf_counter()
        claimed = caller.call("POST", "/v1/pools/services/claim", {"check_health": True})
        claims.append(time.perf_counter() - begun)
        if path:
            caller.call("DELETE", f"/v1/sandboxes/{path.split('/')[2].partition('~')[0]}")
        path = urlsplit(str(claimed["url"])).path
    caller.call("POST", "/v1/pools/services/warm")
    trips = [_timed(caller, path) for _ in range(samples * 4)]
    rate = _proxy_rate(url, path, samples * 16)
    caller.call("DELETE", "/v1/pools/services?force=true")
    claim, trip = (statistics.median(times) * 1000 for times in (claims, trips))
    return [
        compare("claim of a healthy server, p50", claim, "≤ 3 ms", lambda value: value <= 3, "ms"),
        compare(
            "GET through the proxy, whole trip, p50", trip, "≤ 1 ms", lambda value: value <= 1, "ms"
        ),
        compare(
            f"GETs through one sandbox, {_PROXY_CLIENTS} connections",
            rate,
            "≥ 800 /s",
            lambda value: value >= 800,
            "/s",
        ),
    ]


def _proxy_rate(url: str, path: str, count: int) -> float:
    callers = [Caller(url) for _ in range(_PROXY_CLIENTS)]
    numbers = iter(range(count))

    def work(own: Caller) -> None:
        for _ in numbers:
            own.call("GET", path)
        own.close()

    begun = time.perf_counter()
    with ThreadPoolExecutor(_PROXY_CLIENTS) as threads:
        list(threads.map(work, callers))
    return count / (time.perf_counter() - begun)


def _measure_idle(url: str, pid: int, count: int) -> list[Result]:
    caller = Caller(url)
    _make_pool(caller, name="idle", warm=count, max=count, builders=8)
    caller.call("POST", "/v1/pools/idle/warm")
    time.sleep(1)
    before = _processor_seconds(pid)
    time.sleep(_IDLE_SECONDS)
    share = (_processor_seconds(pid) - before) / _IDLE_SECONDS * 100
    caller.call("DELETE", "/v1/pools/idle?force=true")
    caller.close()
    name = f"an idle server with {count} warm sandboxes"
    return [compare(name, share, "≤ 2 %", lambda value: value <= 2, "% of a core")]


def _processor_seconds(pid: int) -> float:
    """Return what a process and all below it have used."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        used[int(entry.name)] = int(fields[11]) + int(fields[12])
    below, ticks = [pid], 0
    while below:
        each = below.pop()
        ticks += used.get(each, 0)
        below += children.get(each, [])
    return ticks / os.sysconf("SC_CLK_TCK")


def _timed(caller: Caller, path: str) -> float:
    begun = time.perf_counter()
    caller.call("GET", path)
    return time.perf_counter() - begun


def _make_pool(caller: Caller, **spec: object) -> None:
    caller.call("POST", "/v1/pools", spec)
    caller.call("POST", f"/v1/pools/{spec['name']}/warm")


def _borrow(caller: Caller, pool: str) -> Any:
    lease = caller.call("POST", f"/v1/pools/{pool}/lease", {})
    result = caller.call(
        "POST",
        f"/v1/sandboxes/{lease['sandbox']['id']}/code",
        {"code": "print(1)"},
        X_Sandpool_Lease=lease["lease_id"],
    )
    if result["stdout"] != "1\n":
        raise SandpoolError(f"a sandbox answered {result!r}")
    return lease


def _give_back(caller: Caller, lease: Any) -> None:
    caller.call("DELETE", f"/v1/leases/{lease['lease_id']}")
