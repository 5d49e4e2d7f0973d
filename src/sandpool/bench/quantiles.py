"""What many samples come to: quantiles with their n, the spread of repeats, a curve, an index.

A quantile is a sample, never something between two: the smallest that is at least as large as that
share of all.  Where there are too few samples beyond a quantile for it to mean anything, it is left
out: one in a thousand needs ten thousand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain

from sandpool.bench.report import Figure

NEEDED = {"p50": 1, "p99": 1, "p99.9": 10_000}
"""How many samples a quantile needs.  Of fewer than a hundred p99 is the largest; its n says so."""
_SHARES = {"p50": Fraction(1, 2), "p99": Fraction(99, 100), "p99.9": Fraction(999, 1000)}
_CURVE = [*(step / 50 for step in range(1, 50)), 0.99, 0.995, 0.999, 0.9999]
"""The shares at which a curve of all samples is kept."""


def quantile(samples: Sequence[float], share: Fraction | float) -> float:
    """Return the smallest sample that is at least as large as this share of all."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(samples: Sequence[float]) -> float:
    """Return the middle sample; of two, the lower one."""
    return quantile(samples, Fraction(1, 2))


def latencies(
    name: str,
    repeats: Sequence[Sequence[float]],
    *,
    goals: dict[str, str] | None = None,
    longest: bool = True,
    unit: str = "ms",
) -> list[Figure]:
    """Return the quantiles of seconds, in milliseconds, over all repeats and for each of them.

    `goals` says by the name of a quantile which target it is held to.  Nothing is said of nothing.
    """
    repeats = [repeat for repeat in repeats if repeat]
    pooled = list(chain.from_iterable(repeats))
    factor = {"ms": 1e3, "µs": 1e6}[unit]
    found: list[Figure] = []
    for label, share in _SHARES.items():
        if len(pooled) < NEEDED[label]:
            continue
        each = tuple(quantile(repeat, share) * factor for repeat in repeats)
        # Repeats too short for a quantile have no spread of it to show.
        is_known = all(len(repeat) >= NEEDED[label] for repeat in repeats)
        found.append(
            Figure(
                name=f"{name}, {label}",
                value=quantile(pooled, share) * factor,
                unit=unit,
                n=len(pooled),
                repeats=each if is_known else (),
                goal=(goals or {}).get(label),
            )
        )
    if longest and pooled:
        each = tuple(max(repeat) * factor for repeat in repeats)
        figure = Figure(
            name=f"{name}, longest", value=max(pooled) * factor, unit=unit, n=len(pooled)
        )
        found.append(figure.model_copy(update={"repeats": each}))
    return found


def steady(
    name: str,
    repeats: Sequence[float],
    unit: str,
    *,
    n: int | None = None,
    goal: str | None = None,
) -> Figure:
    """Return one value for each repeat as a figure: their median and all of them."""
    return Figure(
        name=name,
        value=median(repeats),
        unit=unit,
        n=len(repeats) if n is None else n,
        repeats=tuple(repeats),
        goal=goal,
    )


def distribution(samples: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return some of the samples, in milliseconds and in order, and the share that each exceeds.

    Every sample would be too much to keep; the tail is kept as closely as there are samples of it.
    """
    ordered = sorted(samples)
    shares = [share for share in _CURVE if (1 - share) * len(ordered) >= 1]
    values = [quantile(ordered, share) * 1e3 for share in shares]
    return (*values, ordered[-1] * 1e3), (*shares, 1.0)


def distance(measured: Sequence[float], expected: Sequence[float]) -> float:
    """Return how far a curve lies from another: the area between them over that below the other.

    Only the places count where the other is above zero.
    """
    total = sum(expected)
    pairs = zip(measured, expected, strict=True)
    return sum(abs(one - other) for one, other in pairs if other > 0) / total if total else 0.0


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of what each of several got: 1 is even, 1/n is all to one."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
