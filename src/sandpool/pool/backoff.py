"""`Backoff`: how long to wait after failures in a row.  Pure, but for the jitter it is given."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

_FIRST = 0.1
_LONGEST = 30.0


class Backoff:
    """Counts failures in a row, and doubles the pause with each.

    What is tried side by side fails side by side when a cause comes: of the attempts that had begun
    before a failure was counted, none counts again.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        """Begin without failures; `jitter` returns numbers from 0 to 1."""
        self._jitter = jitter
        self._counted_at = -math.inf
        self.failures = 0
        """Failures since the last success."""
        self.until = -math.inf
        """When the next attempt may begin."""

    def fail(self, begun: float, now: float) -> None:
        """Note the failure of an attempt; it waits at least half of the full pause from now on."""
        if begun <= self._counted_at:
            return
        self._counted_at = now
        self.failures += 1
        # The exponent is bounded so that years of failures overflow nothing.
        pause = min(_LONGEST, _FIRST * 2.0 ** min(self.failures - 1, 16))
        self.until = now + pause * (0.5 + 0.5 * self._jitter())

    def succeed(self) -> None:
        """Note a success."""
        self.failures = 0
