"""Which benchmarks there are, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sandpool.bench import (
    bursts,
    claims,
    containers,
    density,
    failures,
    fairness,
    first_output,
    held,
    misses,
    model_check,
    refill,
    resets,
    served,
    services,
    soak,
)
from sandpool.bench.report import Findings
from sandpool.bench.scale import Scale
from sandpool.errors import InvalidSpec

Suite = Literal["pool", "server", "docker", "all"]
"""Pools in this process; a server of its own; containers; all of these."""

_HERE = "in this process"
_HTTP = "over HTTP on loopback"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One family of measurements."""

    key: str
    title: str
    suite: Suite
    where: str
    measure: Callable[[Scale], Awaitable[Findings]]


BENCHMARKS = (
    Benchmark("B1", "Warm claims, open loop", "pool", _HERE, claims.measure),
    Benchmark("B2", "Time to first output", "pool", _HERE, first_output.measure),
    Benchmark("B3", "Runs in held sandboxes", "pool", _HERE, held.measure),
    Benchmark("B4", "Misses, and what else there is", "pool", _HERE, misses.measure),
    Benchmark("B5", "Refill and fresh cycles", "pool", _HERE, refill.measure),
    Benchmark("B6", "Bursts against theory", "pool", _HERE, bursts.measure),
    Benchmark("B7", "Density", "pool", _HERE, density.measure),
    Benchmark("B8", "Reset against fresh", "pool", _HERE, resets.measure),
    Benchmark("B9", "Fairness", "pool", _HERE, fairness.measure),
    Benchmark("B10", "The tax of failures", "pool", _HERE, failures.measure),
    Benchmark("B11", "Misses against their prediction", "pool", _HERE, model_check.measure),
    Benchmark("B12", "Soak", "pool", _HERE, soak.measure),
    Benchmark("HTTP", "A server", "server", _HTTP, served.measure),
    Benchmark("services", "Pools of servers", "server", _HTTP, services.measure),
    Benchmark("docker", "Containers", "docker", "over the engine's socket", containers.measure),
)


def choose(suite: Suite, keys: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks with these keys, or all of a suite; `InvalidSpec` for unknown keys."""
    if not keys:
        return [each for each in BENCHMARKS if suite in (each.suite, "all")]
    wanted = {key.casefold() for key in keys}
    unknown = wanted - {each.key.casefold() for each in BENCHMARKS}
    if unknown:
        known = ", ".join(each.key for each in BENCHMARKS)
        raise InvalidSpec(f"there is no benchmark {min(unknown)!r}; there are {known}")
    return [each for each in BENCHMARKS if each.key.casefold() in wanted]


def find(key: str) -> Benchmark:
    """Return one by its key; `InvalidSpec`."""
    return choose("all", [key])[0]
