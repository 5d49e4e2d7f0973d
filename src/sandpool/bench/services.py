"""Pools of servers: claims of healthy ones, what the proxy adds to a request, and lives left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

import anyio.to_thread

from sandpool.bench import quantiles
from sandpool.bench.caller import Caller, call_at_once, connected, serving
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.errors import BackendUnavailable

_CLIENTS = 16
_PROXY_CLIENTS = 8
_TRIPS = 4
"""Requests through the proxy for each sample of something slower."""
_LIFETIME = 6.0
_MIN_REMAINING = 5.0
_PAUSE = 0.5
"""Seconds in which a stock grows old."""
_PAUSE_EVERY = 64
_ALL_LIVES = 10_000

_SERVER = """
import sys
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

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""Sends an answer at once: in two pieces, the second would wait for the first one's receipt."""


async def measure(scale: Scale) -> Findings:
    """Measure in a thread, by blocking calls."""
    return await anyio.to_thread.run_sync(_measure, scale)


def _measure(scale: Scale) -> Findings:
    with serving() as (url, _), connected(url) as caller:
        figures = [*_measure_services(url, caller, scale), measure_lives(url, scale.cycles)]
    note = (
        "What the proxy adds: a request through the server's proxy to a server in a sandbox, "
        "less one to an equal server on loopback, in turns on two keep-alive connections."
    )
    return Findings(figures=tuple(figures), notes=(note,))


def _measure_services(url: str, caller: Caller, scale: Scale) -> list[Figure]:
    caller.make_pool(
        name="services",
        entrypoint=["python3", "-c", _SERVER, "8080"],
        ports=[8080],
        health_check={"kind": "http"},
        warm=4,
        max=64,
    )
    claims: list[list[float]] = []
    path = ""
    for _ in range(scale.repeats):
        claims.append([])
        for _ in range(scale.samples):
            caller.fill("services")
            took, claimed = caller.timed("POST", "/v1/pools/services/claim", {"check_health": True})
            claims[-1].append(took)
            if path:
                caller.call("DELETE", f"/v1/sandboxes/{path.split('/')[2].partition('~')[0]}")
            path = urlsplit(str(claimed["url"])).path
    caller.fill("services")
    figures = quantiles.latencies(
        "claim of a healthy server", claims, goals={"p50": "service-claim"}
    )
    figures += _measure_proxy(caller, path, scale)
    figures.append(_measure_proxy_rate(url, path, scale))
    caller.remove_pool("services")
    return figures


def _measure_proxy(caller: Caller, path: str, scale: Scale) -> list[Figure]:
    through: list[list[float]] = []
    direct: list[list[float]] = []
    with _equal_server() as url, connected(url) as other:
        for _ in range(scale.repeats):
            through.append([])
            direct.append([])
            for _ in range(scale.samples * _TRIPS):
                through[-1].append(caller.timed("GET", path)[0])
                direct[-1].append(other.timed("GET", "/")[0])
    added = [
        1e3 * (quantiles.median(one) - quantiles.median(two))
        for one, two in zip(through, direct, strict=True)
    ]
    count = sum(map(len, through))
    return [
        *quantiles.latencies("GET through the proxy, whole trip", through, longest=False),
        *quantiles.latencies("the same GET, direct to an equal server", direct, longest=False),
        quantiles.steady("what the proxy adds, p50", added, "ms", n=count, goal="proxy-cost"),
    ]


@contextmanager
def _equal_server() -> Generator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise BackendUnavailable("the server to compare with did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _measure_proxy_rate(url: str, path: str, scale: Scale) -> Figure:
    count = scale.samples * 16
    rates = [
        count / call_at_once(url, _PROXY_CLIENTS, count, lambda own, _: own.call("GET", path))
        for _ in range(scale.repeats)
    ]
    name = f"GETs through one sandbox, {_PROXY_CLIENTS} connections"
    return quantiles.steady(name, rates, "/s", n=count * scale.repeats, goal="proxy-rate")


def measure_lives(url: str, count: int) -> Figure:
    """Claim `count` sandboxes that live for a short time, and count those that have too little."""
    short: list[float] = []

    def work(own: Caller, number: int) -> None:
        if number % _PAUSE_EVERY == 0:
            time.sleep(_PAUSE)
        claimed = own.call("POST", "/v1/pools/lives/claim", {"check_health": True})
        if claimed["remaining"] < _MIN_REMAINING:
            short.append(claimed["remaining"])
        own.call("DELETE", f"/v1/sandboxes/{claimed['id']}")

    with connected(url) as caller:
        caller.make_pool(
            name="lives",
            warm=_CLIENTS,
            max=8 * _CLIENTS,
            builders=8,
            lifetime=_LIFETIME,
            min_remaining=_MIN_REMAINING,
        )
        call_at_once(url, _CLIENTS, count, work)
        caller.remove_pool("lives")
    goal = "lives" if count >= _ALL_LIVES else None
    return Figure(
        name="claims with too little time left", value=len(short), unit="", n=count, goal=goal
    )
