"""`Behaviour`: how long the steps of simulated sandboxes take, and how often they fail.  Pure.

A `Time` is drawn from a random generator that the caller owns, so a seed decides everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

Time = Callable[[Random], float]
"""Draws how many seconds something takes."""

_NORMAL_P99 = 2.3263478740408408
"""How many standard deviations above its mean the 99th percentile of a normal distribution is."""


def fixed(seconds: float) -> Time:
    """Take so long each time."""
    _need(seconds >= 0, f"a time of {seconds!r} s")
    return lambda random: seconds


def exponential(mean: float) -> Time:
    """Take `mean` seconds on average, whatever has passed already: the times without a memory."""
    _need(mean > 0, f"a mean of {mean!r} s")
    return lambda random: random.expovariate(1 / mean)


def lognormal(median: float, p99: float) -> Time:
    """Take about `median` seconds, now and then far more: the usual shape of measured times."""
    _need(0 < median < p99, f"a median of {median!r} s with a p99 of {p99!r} s")
    sigma = math.log(p99 / median) / _NORMAL_P99
    return lambda random: median * math.exp(random.gauss(0.0, sigma))


@dataclass(frozen=True, slots=True)
class Step:
    """How long one step takes, and which share of its tries fails after that time."""

    time: Time = field(default_factory=lambda: fixed(0.0))
    failures: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        _need(0 <= self.failures <= 1, f"a share of failures of {self.failures!r}")

    def draw(self, random: Random) -> tuple[float, bool]:
        """Return how many seconds the next try takes, and whether it fails."""
        seconds = self.time(random)
        return seconds, bool(self.failures) and random.random() < self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The steps in the life of a sandbox; by default none of them takes time or fails."""

    create: Step = field(default_factory=Step)
    run: Step = field(default_factory=Step)
    """What a run takes beyond what its program sleeps; a failed one takes the sandbox with it."""
    check: Step = field(default_factory=Step)
    reset: Step = field(default_factory=Step)
    destroy: Step = field(default_factory=Step)


def _need(holds: bool, what: str) -> None:
    if not holds or "nan" in what:
        raise ValueError(f"{what} is impossible")
