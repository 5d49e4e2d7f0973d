"""The event loop of the guest: descriptors, timers and sliced work, one thread, nothing else.

It is fair by construction: in one turn each ready descriptor and each piece of sliced work is
called once, and every callee does one bounded step.

    L1  A callback may be called once more after its descriptor has changed hands within one turn;
        all descriptors are non-blocking, so such a call finds nothing to do.
    L2  A closed descriptor is never watched: `unwatch` comes before `os.close`.
"""

from __future__ import annotations

import heapq
import select
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

monotonic = time.monotonic

_LONGEST_POLL = 24.0 * 3600
"""In seconds; the kernel counts milliseconds, in 31 bits.  A turn in vain costs nothing."""


class Timer:
    """One call in the future."""

    __slots__ = ("callback", "number", "when")

    def __init__(self, when: float, number: int, callback: Callable[[], None]) -> None:
        """Be made by `Loop.after` only."""
        self.when = when
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make it do nothing."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        """Order by time, then by age."""
        return (self.when, self.number) < (other.when, other.number)


class Loop:
    """Runs callbacks until one of them raises."""

    __slots__ = ("_epoll", "_ready", "_timer_count", "_timers", "_watchers")

    def __init__(self) -> None:
        """Open the epoll descriptor; children close it unseen."""
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._timer_count = 0
        self._ready: deque[Callable[[], None]] = deque()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `fd` is ready; a second call changes what for."""
        if fd in self._watchers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watchers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget `fd`.  A hang-up is reported to every watcher, so this is also how one pauses."""
        if self._watchers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `seconds` from now."""
        self._timer_count += 1
        timer = Timer(monotonic() + seconds, self._timer_count, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in the next turn."""
        self._ready.append(callback)

    def close(self) -> None:
        """Close the epoll descriptor; nothing can be watched any more."""
        self._epoll.close()

    def run(self) -> None:
        """Turn for ever; ends only by an exception from a callback."""
        epoll, watchers, ready = self._epoll, self._watchers, self._ready
        while True:
            for fd, events in epoll.poll(self._patience(), 64):
                callback = watchers.get(fd)
                if callback is not None:
                    callback(events)
            if self._timers:
                self._run_timers()
            for _ in range(len(ready)):
                ready.popleft()()

    def _patience(self) -> float:
        """Return how long the next poll may wait, in seconds; negative is for ever."""
        if self._ready:
            return 0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return min(max(0.0, self._timers[0].when - monotonic()), _LONGEST_POLL)

    def _run_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()
