"""B8: a sandbox as it was at its start: by making a new one, or by a reset, each with a leak check.

A tenant leaves a file, a process, a variable, a listening socket and a sequence of random numbers;
the next looks for them.  A way that lets one of them through is not timed: it is a failure.
"""

from __future__ import annotations

import time

import anyio

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.bench import baselines, pools, quantiles
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.errors import BackendUnavailable, SandpoolError

_LEAVE = """
import os, random, socket, subprocess
open("left", "w").write("x" * 1000)
open("/tmp/left", "w").write("x")
os.environ["LEFT"] = "1"
listener = socket.create_server(("127.0.0.1", 8765))
os.set_inheritable(listener.fileno(), True)
subprocess.Popen(["sleep", "1000"], start_new_session=True, close_fds=False)
print(random.random(), os.urandom(8).hex())
"""
_LOOK = """
import os, random, socket
found = [path for path in ("left", "/tmp/left") if os.path.exists(path)]
found += ["LEFT"] * ("LEFT" in os.environ)
with socket.socket() as client:
    found += ["a socket"] * (client.connect_ex(("127.0.0.1", 8765)) == 0)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        found += ["a process"] * (b"sleep" in open(f"/proc/{pid}/cmdline", "rb").read())
    except OSError:
        pass
print(random.random(), os.urandom(8).hex())
print(*found, sep=", ")
"""


async def measure(scale: Scale) -> Findings:
    """Measure a new sandbox of the native backend, and a reset of a container where there are."""
    fresh = [await _measure_fresh(scale.samples) for _ in range(scale.repeats)]
    figures: list[Figure] = [
        *quantiles.latencies("given back until the next has a fresh one", fresh),
        Figure(name="leaks into fresh ones", value=0, unit="", n=sum(map(len, fresh))),
    ]
    notes = ["left out: a reset of native sandboxes, which are only ever made anew"]
    try:
        figures += await _measure_resets(scale)
    except BackendUnavailable as error:
        notes.append(f"left out: a reset of containers: {error}")
    return Findings(figures=tuple(figures), notes=tuple(notes))


async def _measure_fresh(samples: int) -> list[float]:
    """Have one place only, so that the next tenant waits for what the last one's end takes."""
    times: list[float] = []
    async with pools.warm_pool(warm=1, most=1) as manager:
        tenancy = await manager.borrow(pools.POOL)
        try:
            for _ in range(samples):
                left = (await tenancy.handle.run_code(_LEAVE)).stdout
                begun = time.perf_counter()
                tenancy.end()
                tenancy = await manager.borrow(pools.POOL)
                times.append(time.perf_counter() - begun)
                check(left, (await tenancy.handle.run_code(_LOOK)).stdout)
        finally:
            tenancy.end()
    return times


async def _measure_resets(scale: Scale) -> list[Figure]:
    times: list[list[float]] = []
    backend = DockerBackend()
    try:
        box = await backend.create(BoxSpec(image=baselines.IMAGE), box_id="bench-reset")
        for _ in range(scale.repeats):
            times.append([])
            for _ in range(scale.slow_samples):
                left = (await box.run_code(_LEAVE, RunOptions())).stdout
                begun = time.perf_counter()
                await box.reset()
                times[-1].append(time.perf_counter() - begun)
                check(left, (await box.run_code(_LOOK, RunOptions())).stdout)
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the backend
            await backend.aclose()
    return [
        *quantiles.latencies("reset of a container", times, goals={"p50": "docker-reset"}),
        Figure(name="leaks through resets", value=0, unit="", n=sum(map(len, times))),
    ]


def check(left: str, seen: str) -> None:
    """Raise `SandpoolError` for what one tenant has left and the next has seen."""
    numbers, _, found = seen.strip().partition("\n")
    if not numbers or not left.strip():
        raise SandpoolError(f"a tenant could not leave or look: {left!r}, {seen!r}")
    same = set(left.split()) & set(numbers.split())
    if found or same:
        raise SandpoolError(f"the next tenant found {found or 'the same random numbers'}")
