"""Waiting on an event loop to within microseconds.

An event loop's own timers are rounded up to milliseconds, which would be many times what a
hand-over takes.  The kernel's timer descriptors are not.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from types import TracebackType

import anyio

_ABSOLUTE = 1
_CLOCK_MONOTONIC = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timing(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """One timer descriptor, closed at the end of its `with` block."""

    def __enter__(self) -> Timer:
        """Open it; `OSError`."""
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, flags))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._descriptor)

    async def until(self, at: float) -> None:
        """Return at a time of `time.perf_counter()`; at once, though a checkpoint, if it is past.

        That counter is the kernel's monotonic clock, which the timer goes by.
        """
        if at <= time.perf_counter():
            await anyio.lowlevel.checkpoint()
            return
        fraction, seconds = math.modf(at)
        timing = _Timing(_Timespec(0, 0), _Timespec(int(seconds), int(fraction * 1e9)))
        _checked(_libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(timing), None))
        await anyio.wait_readable(self._descriptor)
        os.read(self._descriptor, 8)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
