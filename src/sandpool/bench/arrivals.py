"""Whose arrivals a run has, at which rates, and whether a system has kept up with them.

A closed loop asks again only once it has been answered, so a slow answer hides the requests that
would have come meanwhile.  Here the starts are fixed before the run, and a latency counts from the
start that was intended, as wrk2 counts it: whatever delays a call is part of what it took.
"""

from __future__ import annotations

from itertools import takewhile

from sandpool.testing import traces

_SLACK = 1.1
"""How much longer than its arrivals a run may take; random arrivals come in clusters."""
_TAIL = 0.25
"""Seconds that the last calls of even a short run may take."""


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the starts of `rate` calls a second, as seconds from the beginning, in order.

    The same seed gives the same starts.  Never empty: the first call comes at the end if none came
    before it.
    """
    starts = list(takewhile(lambda at: at < seconds, traces.poisson(rate, seed)))
    return starts or [seconds]


def is_saturated(*, seconds: float, took: float, unserved: int) -> bool:
    """Whether calls that came for `seconds` and were served after `took` have been too many."""
    return unserved > 0 or took > seconds * _SLACK + _TAIL


def rates_to_try(rates: tuple[float, ...], step: float, highest: float) -> list[float]:
    """Return the rates in order, and then higher ones for as long as nothing is saturated."""
    found = sorted(rates)
    following = found[-1] + step
    while following <= highest:
        found.append(following)
        following += step
    return found
