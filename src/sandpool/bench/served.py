"""What a server costs: claims, runs and borrows over HTTP, its idle, and its recovery.

Beside ms-enclave's server on Docker, where `make thirdparty` and an engine are here.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread
from httptools import HttpParserError

from sandpool.bench import baselines, procfs, quantiles
from sandpool.bench.caller import Caller, call_at_once, connected, end, serving
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.errors import BackendUnavailable, SandpoolError

RIVAL = Path(".venv-thirdparty/bin")
"""What `make thirdparty` makes, seen from the checkout."""
_CLIENTS = 16
_LOOK = 0.05
_START = 60.0
_IDLE_AIM = 500


async def measure(scale: Scale) -> Findings:
    """Measure in a thread, by blocking calls."""
    return await anyio.to_thread.run_sync(_measure, scale)


def _measure(scale: Scale) -> Findings:
    figures: list[Figure] = []
    with serving() as (url, _), connected(url) as caller:
        figures += _measure_claims(caller, scale)
        figures += _measure_borrows(caller, scale)
        figures.append(_measure_rate(url, caller, scale))
        rival = _measure_rival(caller, scale)
    with serving() as (url, process), connected(url) as caller:
        figures.append(_measure_idle(caller, process.pid, scale))
    figures += _measure_restarts(scale)
    return Findings(figures=(*figures, *rival.figures), notes=rival.notes)


def _measure_claims(caller: Caller, scale: Scale) -> list[Figure]:
    caller.make_pool(name="claims", warm=8, max=64)
    times = [
        [_timed_claim(caller, "claims") for _ in range(scale.samples)] for _ in range(scale.repeats)
    ]
    caller.remove_pool("claims")
    return quantiles.latencies("claim over HTTP", times, goals={"p50": "http-claim"})


def _timed_claim(caller: Caller, pool: str) -> float:
    caller.fill(pool)
    took, claimed = caller.timed("POST", f"/v1/pools/{pool}/claim", {})
    caller.call("DELETE", f"/v1/sandboxes/{claimed['id']}")
    return took


def _measure_borrows(caller: Caller, scale: Scale) -> list[Figure]:
    caller.make_pool(name="runs", warm=4, max=64)
    times = [
        [_timed_borrow(caller, "runs") for _ in range(scale.samples)] for _ in range(scale.repeats)
    ]
    caller.remove_pool("runs")
    goals = {"p50": "http-borrow"}
    return quantiles.latencies("borrow and print(1) over HTTP", times, goals=goals)


def _timed_borrow(caller: Caller, pool: str) -> float:
    caller.fill(pool)
    begun = time.perf_counter()
    lease = caller.borrow(pool)
    took = time.perf_counter() - begun
    caller.give_back(lease)
    return took


def _measure_rate(url: str, caller: Caller, scale: Scale) -> Figure:
    caller.make_pool(name="borrows", warm=_CLIENTS, max=4 * _CLIENTS, builders=8)
    count = max(_CLIENTS, scale.cycles // 10)
    rates: list[float] = []
    for _ in range(scale.repeats):
        caller.fill("borrows")
        took = call_at_once(
            url, _CLIENTS, count, lambda own, _: own.give_back(own.borrow("borrows"))
        )
        rates.append(count / took)
    caller.remove_pool("borrows")
    name = f"fresh borrows over HTTP, {_CLIENTS} clients"
    return quantiles.steady(name, rates, "/s", n=count * scale.repeats, goal="http-borrows")


def _measure_idle(caller: Caller, pid: int, scale: Scale) -> Figure:
    count = scale.served_idle
    caller.make_pool(name="idle", warm=count, max=count, builders=8)
    time.sleep(min(1.0, scale.idle))
    shares: list[float] = []
    for _ in range(scale.repeats):
        before = procfs.processor_seconds(pid)
        time.sleep(scale.idle)
        shares.append(100 * (procfs.processor_seconds(pid) - before) / scale.idle)
    caller.remove_pool("idle")
    goal = "http-idle" if count == _IDLE_AIM else None
    name = f"an idle server with {count} warm sandboxes"
    return quantiles.steady(name, shares, "% of a core", goal=goal)


def _measure_restarts(scale: Scale) -> list[Figure]:
    """Kill a server, start it again, and claim from the pool that it remembers."""
    times: list[float] = []
    for _ in range(scale.repeats):
        with tempfile.TemporaryDirectory() as state:
            with serving(state) as (url, process), connected(url) as caller:
                caller.make_pool(name="kept", warm=4, max=16)
                process.kill()
                process.wait()
            begun = time.perf_counter()
            with serving(state) as (url, _), connected(url) as caller:
                caller.call("POST", "/v1/pools/kept/claim", {})
                times.append(time.perf_counter() - begun)
    return quantiles.latencies("server killed, started again, until a claim", [times])


# --- ms-enclave -----------------------------------------------------------------------------------


def _measure_rival(caller: Caller, scale: Scale) -> Findings:
    """Ask their server, with containers in its pool, and ours in turns."""
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    try:
        with _rival() as rival:
            caller.make_pool(name="rival", warm=4, max=64)
            for _ in range(scale.repeats):
                theirs.append([])
                ours.append([])
                for _ in range(scale.slow_samples):
                    theirs[-1].append(_timed_tool(rival))
                    ours[-1].append(_timed_borrow(caller, "rival"))
            caller.remove_pool("rival")
    except (BackendUnavailable, OSError) as error:
        return Findings(notes=(f"left out: ms-enclave's server on Docker: {error}",))
    each = [
        quantiles.median(one) / quantiles.median(two) for one, two in zip(theirs, ours, strict=True)
    ]
    name = "ms-enclave's server on Docker"
    return Findings(
        figures=(
            *quantiles.latencies(f"{name}, print(1) in its pool", theirs),
            quantiles.steady(
                f"{name} ÷ borrow and print(1)",
                each,
                "times",
                n=sum(map(len, theirs)),
                goal="http-rival",
            ),
        )
    )


@contextmanager
def _rival() -> Generator[Caller]:
    """Run ms-enclave's server with a pool of two containers; `BackendUnavailable`."""
    program = RIVAL / "ms-enclave"
    if not program.exists():
        raise BackendUnavailable("`make thirdparty` installs it")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "error"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with connected(f"http://127.0.0.1:{port}") as caller:
            _wait_for(caller, process)
            tools: dict[str, object] = {"python_executor": {}}
            config: dict[str, object] = {"image": baselines.IMAGE, "tools_config": tools}
            path = "/pool/initialize?pool_size=2&sandbox_type=docker"
            try:
                caller.call("POST", path, config)
            except SandpoolError as error:
                raise BackendUnavailable(str(error)) from error
            for _ in range(4):
                _timed_tool(caller)
            yield caller
    finally:
        end(process)


def _wait_for(caller: Caller, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            caller.call("GET", "/health")
        except OSError as error:
            caller.close()
            if process.poll() is not None or time.monotonic() > deadline:
                raise BackendUnavailable("it did not start") from error
            time.sleep(_LOOK)
        else:
            return


def _timed_tool(caller: Caller) -> float:
    """Return the seconds of one call; `BackendUnavailable` if it is not answered as it should be.

    Without an engine their server makes an empty pool, and says so only now.
    """
    path = "/pool/execute?tool_name=python_executor&timeout=300"
    try:
        took, result = caller.timed("POST", path, {"code": "print(1)"})
    except (SandpoolError, OSError, HttpParserError) as error:
        raise BackendUnavailable(str(error)) from error
    if str(result["output"]).strip() != "1":
        raise BackendUnavailable(f"its sandbox answered {result!r}")
    return took
