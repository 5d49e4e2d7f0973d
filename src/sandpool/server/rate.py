"""How many requests a namespace may make: a token bucket, as a pure function of time."""

from __future__ import annotations

from typing import NamedTuple


class Bucket(NamedTuple):
    """Tokens that grow with time up to a burst; a request takes one.

    Invariant: 0 <= `tokens` <= the burst.
    """

    tokens: float
    at: float
    """When it was last looked at, in monotonic seconds."""


def take(bucket: Bucket, now: float, *, rate: float, burst: float) -> tuple[Bucket, float]:
    """Take a token, and return the bucket and the seconds to wait.

    They are 0 if there was a token; otherwise none was taken.  `rate` is in tokens per second.
    """
    grown = min(burst, bucket.tokens + max(0.0, now - bucket.at) * rate)
    if grown >= 1:
        return Bucket(grown - 1, now), 0.0
    return Bucket(grown, now), (1 - grown) / rate
