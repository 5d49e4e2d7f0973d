"""`Backoff`: how long to wait after failures in a row.  Pure, but for the jitter it is given."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST = 0.1
_LONGEST = 30.0


class Backoff:
    """Counts failures in a row, and doubles the pause with each."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        """Begin without failures; `jitter` returns numbers from 0 to 1."""
        self._jitter = jitter
        self.failures = 0
        """Failures since the last success."""

    def fail(self) -> float:
        """Note a failure and return the seconds to wait, at least half of the full pause."""
        self.failures += 1
        # The exponent is bounded so that years of failures overflow nothing.
        pause = min(_LONGEST, _FIRST * 2.0 ** min(self.failures - 1, 16))
        return pause * (0.5 + 0.5 * self._jitter())

    def succeed(self) -> None:
        """Note a success."""
        self.failures = 0
