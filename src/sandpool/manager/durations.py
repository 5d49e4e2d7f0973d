"""`Durations`: how long something took, the latest times that it was done."""

from __future__ import annotations

from collections import deque

from sandpool.models import Quantiles

_KEPT = 512


class Durations:
    """The latest of them, in the order in which they came."""

    def __init__(self) -> None:
        """Begin with none."""
        self._latest: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        """Take in one; the oldest is forgotten where there are too many."""
        self._latest.append(seconds)

    def quantiles(self) -> Quantiles | None:
        """Return what they come to; None where there are none."""
        if not self._latest:
            return None
        ordered = sorted(self._latest)
        return Quantiles(
            p50=_at(ordered, 0.5), p99=_at(ordered, 0.99), maximum=ordered[-1], count=len(ordered)
        )


def _at(ordered: list[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of all values."""
    # In whole hundredths, so that no rounding turns the ninety-ninth of a hundred into the last.
    rank = -(-round(share * 100) * len(ordered) // 100)
    return ordered[rank - 1]
