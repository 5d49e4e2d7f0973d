"""What queueing theory says of a pool's misses and waits; pure, to be held against what happens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import count


def refill_misses(mean: float, stock: int) -> float:
    """Return the share of callers that find nothing where each claim starts a refill at once.

    `mean` is the claims that come within one refill's time.  As many refills are on their way as
    claims came within that time, P(Poisson(mean) >= stock), however the time is distributed.
    """
    if stock <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    total = 0.0
    for number in count(stock):
        term = math.exp(number * math.log(mean) - mean - math.lgamma(number + 1))
        total += term
        if number > mean and term <= total * 1e-17:
            return min(1.0, total)
    raise AssertionError("unreachable")


def stock_for(mean: float, misses: float) -> int:
    """Return the least stock with which no more than the share `misses` finds nothing."""
    low, high = 0, 1
    while refill_misses(mean, high) > misses:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if refill_misses(mean, middle) > misses:
            low = middle
        else:
            high = middle
    return high


def queue_misses(load: float, stock: int) -> float:
    """Return the share that finds nothing where one builder makes one after the other.

    `load` is claims by what the builder can make, both a second; its times have no memory.
    """
    return min(1.0, load**stock)


def burst_wait(place: int, stock: int, rate: float) -> float:
    """Return how long the caller at `place`, from 1 on, of a burst waits; `rate`: made a second."""
    return max(0.0, (place - stock) / rate)


def varying_misses(rates: Iterable[tuple[float, float]], lead: float, stock: int) -> float:
    """Return the share that finds nothing where the rate changes, slowly against `lead`.

    `rates` has how long each rate holds, and the rate; each caller meets what its own time's rate
    makes of the stock.
    """
    callers = missed = 0.0
    for seconds, rate in rates:
        callers += seconds * rate
        missed += seconds * rate * refill_misses(rate * lead, stock)
    return missed / callers
