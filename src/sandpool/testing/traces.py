"""When callers come: endless series of arrival times in seconds, from a seed.  Pure.

They are open: who comes does not wait for those before, as the tenants of a service do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield the arrivals of many callers that know nothing of each other, `rate` a second."""
    random = _random(seed)
    now = 0.0
    while True:
        now += random.expovariate(rate)
        yield now


def bursts(
    *, calm: float, busy: float, calm_seconds: float, busy_seconds: float, seed: int
) -> Iterator[float]:
    """Yield arrivals at one rate and then at another, for times without a memory.

    This is the Markov-modulated Poisson process of two states, of which `calm` is the first.
    """
    random = _random(seed)
    now = 0.0
    is_busy = False
    while True:
        end = now + random.expovariate(1 / (busy_seconds if is_busy else calm_seconds))
        rate = busy if is_busy else calm
        while rate > 0:
            arrival = now + random.expovariate(rate)
            if arrival > end:
                # The rest of the time to the next one has no memory either: drawn anew.
                break
            now = arrival
            yield now
        now, is_busy = end, not is_busy


def diurnal(rate: float, swing: float, period: float, seed: int) -> Iterator[float]:
    """Yield arrivals whose rate goes up and down as a sine round `rate`, by the share `swing`.

    It begins at its mean, going up.
    """
    if not 0 <= swing <= 1:
        raise ValueError(f"a swing of {swing!r} is impossible: rates are not negative")
    random = _random(seed)
    highest = rate * (1 + swing)
    now = 0.0
    while True:
        now += random.expovariate(highest)
        level = rate * (1 + swing * math.sin(2 * math.pi * now / period))
        # Of arrivals at the highest rate, those are kept that this moment's rate has.
        if random.random() * highest < level:
            yield now


def _random(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a trace is to be the same each time
