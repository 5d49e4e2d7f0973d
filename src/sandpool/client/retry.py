"""Which calls to a server are made again when their answers do not come, and how soon: pure."""

from __future__ import annotations

_DELAYS = (0.05, 0.2, 0.8)
"""Seconds before the second attempt, the third and the fourth, which is the last."""

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that mean the same once and twice."""

_PASSING = frozenset({502, 503, 504})
"""Statuses of a proxy whose server is not there at the moment."""


def delay(attempt: int) -> float | None:
    """Return the seconds to wait after a failed attempt, counted from 0; None: it was the last."""
    return _DELAYS[attempt] if attempt < len(_DELAYS) else None


def is_repeatable(method: str, *, has_key: bool) -> bool:
    """Whether a call that may have been served can be made again."""
    return method in _REPEATABLE or (method == "POST" and has_key)


def is_passing(status: int, *, is_problem: bool) -> bool:
    """Whether an answer speaks of the way to the server; a problem comes from the server itself."""
    return status in _PASSING and not is_problem
