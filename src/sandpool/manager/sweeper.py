"""The background sweep: removes sandboxes that somebody forgot.

Which they are is decided by `is_overdue`, a pure function; `Sweeper` only asks it now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from sandpool.clock import Clock
from sandpool.errors import SandpoolError
from sandpool.models import SandboxStatus

_log = logging.getLogger(__name__)

_ENDED = frozenset({SandboxStatus.STOPPED, SandboxStatus.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the decision needs to know of one sandbox."""

    id: str
    status: SandboxStatus
    age: float
    """Seconds since its status last changed."""
    is_in_use: bool = False
    """Whether a call is in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old a sandbox may get, in seconds since its status last changed."""

    running: float
    stopped: float
    """Also for those in `error`."""


def is_overdue(candidate: Candidate, ages: Ages) -> bool:
    """Whether a sandbox is to be removed.

    One in use never is; a pool's sandboxes are no candidates: their pool looks after them.
    """
    if candidate.is_in_use:
        return False
    if candidate.status is SandboxStatus.RUNNING:
        return candidate.age > ages.running
    return candidate.status in _ENDED and candidate.age > ages.stopped


class Sweeper:
    """Looks for overdue sandboxes every `interval` seconds and removes them."""

    def __init__(
        self,
        candidates: Callable[[], Iterable[Candidate]],
        remove: Callable[[str], Awaitable[object]],
        *,
        ages: Ages,
        interval: float,
        clock: Clock,
    ) -> None:
        """Know whom to ask for candidates and how to remove one.

        `candidates` may be a generator: each is judged as it comes, and removed before the next one
        is asked for, so that no judgement is out of date.
        """
        self._candidates = candidates
        self._remove = remove
        self._ages = ages
        self._interval = interval
        self._clock = clock

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Sweep until cancelled."""
        task_status.started()
        while True:
            await self._clock.sleep(self._interval)
            await self.sweep()

    async def sweep(self) -> list[str]:
        """Sweep once, and return the ids of those that were removed."""
        removed: list[str] = []
        for candidate in self._candidates():
            if not is_overdue(candidate, self._ages):
                continue
            try:
                await self._remove(candidate.id)
            except SandpoolError:
                # It stays in `error`, and the next sweep tries again.
                _log.exception("sandbox %s is overdue and could not be removed", candidate.id)
            else:
                _log.info("sandbox %s was overdue and has been removed", candidate.id)
                removed.append(candidate.id)
        return removed
