"""What the figures are to reach on two processors, isolation and limits on, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sandpool.bench.report import Figure, Report

Verdict = Literal["reached", "missed", "not measured"]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for one figure."""

    key: str
    benchmark: str
    """The key of the benchmark that measures it."""
    text: str
    """What the figure is of, for those who read that it was not measured."""
    bound: float
    unit: str
    is_ceiling: bool = True

    @property
    def words(self) -> str:
        """The bound as people write it."""
        sign = "≤" if self.is_ceiling else "≥"
        return f"{sign} {self.bound:g} {self.unit}".rstrip()

    def holds(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return value <= self.bound if self.is_ceiling else value >= self.bound


def _table(*targets: Target) -> Mapping[str, Target]:
    return {target.key: target for target in targets}


TARGETS = _table(
    Target("hand-over-p50", "B1", "hand-over of a warm sandbox at 100/s, p50", 0.1, "ms"),
    Target("hand-over-p99", "B1", "hand-over of a warm sandbox at 100/s, p99", 1, "ms"),
    Target("output-p50", "B2", "borrow to first output of print(1), p50", 0.8, "ms"),
    Target(
        "output-fork",
        "B2",
        "borrow to first output ÷ a bare fork of an equal interpreter",
        1.5,
        "times",
    ),
    Target("output-p99", "B2", "borrow to first output of print(1), p99", 4, "ms"),
    Target("output-slow-p99", "B2", "borrow to first output at 1/s, p99", 4, "ms"),
    Target("preload-p50", "B2", "first output with numpy and pandas preloaded, p50", 2, "ms"),
    Target("preload-import", "B2", "importing numpy and pandas ÷ preloaded", 100, "times", False),
    Target("second-run-p50", "B3", "second run in a held sandbox, p50", 0.4, "ms"),
    Target("miss-p50", "B4", "nothing warm: create and first output, p50", 4, "ms"),
    Target("cycles", "B5", "fresh cycles a second, for 60 s", 350, "/s", False),
    Target("cycle-cpu", "B5", "processor time of a fresh cycle", 4, "ms"),
    Target("burst-last", "B6", "burst of 100 on 32 warm, last served", 250, "ms"),
    Target("burst-theory", "B6", "burst of 100 on 32 warm, distance from theory", 30, "%"),
    Target("memory-idle", "B7", "memory of a warm sandbox, 500 of them", 1.2, "MiB"),
    Target("memory-ran", "B7", "memory of a sandbox after a run", 1.6, "MiB"),
    Target("density-p99", "B7", "hand-over p99 with 2,000 parked ÷ with 50", 1.3, "times"),
    Target("idle-cpu", "B7", "processor time with 2,000 parked", 1, "% of a core"),
    Target("close-500", "B7", "close of a pool of 500", 2, "s"),
    Target("http-claim", "HTTP", "claim over HTTP, p50", 1.5, "ms"),
    Target("http-borrow", "HTTP", "borrow and print(1) over HTTP, p50", 4, "ms"),
    Target("http-borrows", "HTTP", "fresh borrows over HTTP, 16 clients", 150, "/s", False),
    Target(
        "http-rival",
        "HTTP",
        "ms-enclave's server on Docker ÷ borrow and print(1)",
        25,
        "times",
        False,
    ),
    Target("http-idle", "HTTP", "an idle server with 500 warm sandboxes", 2, "% of a core"),
    Target("service-claim", "services", "claim of a healthy server over HTTP, p50", 3, "ms"),
    Target("proxy-cost", "services", "what the proxy adds to a request, p50", 1, "ms"),
    Target("proxy-rate", "services", "requests through one sandbox", 800, "/s", False),
    Target("lives", "services", "claims with too little time left, of 10,000", 0, ""),
    Target("docker-p50", "docker", "ms-enclave ÷ sandpool on Docker, p50", 20, "times", False),
    Target(
        "docker-rate", "docker", "sandpool on Docker ÷ ms-enclave, 40 at once", 12, "times", False
    ),
    Target("docker-reset", "B8", "reset of a container, p50", 25, "ms"),
)
"""By their keys, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A target, and what has come of it."""

    target: Target
    figure: Figure | None
    verdict: Verdict


def verdict(figure: Figure) -> Verdict | None:
    """Return what a figure's target says of it; None where it has none."""
    if figure.goal is None:
        return None
    return "reached" if TARGETS[figure.goal].holds(figure.value) else "missed"


def judge(report: Report) -> list[Judged]:
    """Return what has come of every target, in their order."""
    found = {figure.goal: figure for figure in report.figures() if figure.goal is not None}
    return [_judge(target, found.get(key)) for key, target in TARGETS.items()]


def _judge(target: Target, figure: Figure | None) -> Judged:
    if figure is None:
        return Judged(target, None, "not measured")
    return Judged(target, figure, "reached" if target.holds(figure.value) else "missed")
