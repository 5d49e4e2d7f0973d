"""What queueing theory says that a pool should do, to hold against what it does.

S is the stock, λ the claims and μ the builds a second, L the time from a claim to its replacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def miss_with_enough_builders(rate: float, lead: float, stock: int) -> float:
    """Return the share of claims that find nothing, where every claim starts one replacement.

    P(Poisson(λL) ≥ S): as many replacements as there is stock are still on their way.
    """
    load = rate * lead
    if stock <= 0:
        return 1.0
    # Summed from the smaller side, so that no share comes out below zero.
    below = sum(
        math.exp(-load + count * math.log(load) - math.lgamma(count + 1)) if load else count == 0
        for count in range(stock)
    )
    return min(1.0, max(0.0, 1.0 - below))


def miss_with_few_builders(rate: float, builds: float, stock: int) -> float:
    """Return the same where μ is all that the builders manage: (λ/μ)^S, at most 1."""
    return min(1.0, rate / builds) ** stock


def burst_wait(place: int, stock: int, builds: float) -> float:
    """Return the seconds that the caller at `place`, counted from 1, waits in a burst."""
    return max(0, place - stock) / builds


def burst_deviation(waits: Sequence[float], stock: int, builds: float) -> float:
    """Return how far the waits of a burst lie from theory: the area between over that below.

    `waits` are in the order of their ends.  Only those count that theory lets wait at all.
    """
    expected = [burst_wait(place, stock, builds) for place in range(1, len(waits) + 1)]
    total = sum(expected)
    apart = sum(
        abs(wait - theory) for wait, theory in zip(waits, expected, strict=True) if theory > 0
    )
    return apart / total if total else 0.0
