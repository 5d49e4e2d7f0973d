"""Which run a process belongs to, whatever it did to hide.

Every process that the guest starts gets a tag: a hard limit of RLIMIT_RTTIME, a limit that nothing
in a sandbox uses.  Children inherit it through fork and exec, setsid and double fork; everybody can
read it in /proc/PID/limits; and without CAP_SYS_RESOURCE nobody can raise it.  A process can lower
its tag, which gains it nothing: tags go down from run to run by random steps, so what it can reach
by lowering is the tag of a later run, which it would have to know, or no run's tag at all, and
processes with such tags are killed along with any run.

    K1  A tag is in exactly one of `_live` (its request is open, or its context exists), `_parked`
        (a spare process, which has run nothing of the tenant's) and `_ended`.
    K2  Every tag is lower than all tags before it.

This module is pure but for the random steps.
"""

from __future__ import annotations

import os
import resource

_TOP = 1 << 62
_STEP_BYTES = 5
_KEEP = 1024
"""Ended tags remembered before we ask which of them are still in use."""


def ceiling() -> int:
    """Return the value below which tags begin."""
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    return _TOP if hard == resource.RLIM_INFINITY else hard


def mark(tag: int) -> None:
    """Give this process its tag; called in a new child."""
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, tag))
    except (ValueError, OSError):
        # A kernel without this limit (some gVisor): the session alone tells, then `kill(-1)`.
        pass


def early_tag() -> int:
    """Return the tag of a spare that was forked before its guest had begun.

    It need not be random: it is higher than all that follow, and no tag can be raised.
    """
    return ceiling() - 1


class Kin:
    """The tags that have been given out."""

    __slots__ = ("_ended", "_live", "_next", "_parked")

    def __init__(self, top: int) -> None:
        """Give out tags below `top`."""
        self._next = top
        self._live: set[int] = set()  # Invariant K1
        self._parked: set[int] = set()
        self._ended: set[int] = set()

    def issue(self) -> int:
        """Return a new tag for something that begins."""
        # Invariant K2.  From the kernel, because a child has a copy of all that we remember.
        self._next -= 1 + int.from_bytes(os.urandom(_STEP_BYTES), "big")
        self._live.add(self._next)
        return self._next

    def park(self, tag: int) -> None:
        """Note that what carries `tag` is a spare; it may be one that was given out elsewhere."""
        self.pass_over(tag)
        self._live.discard(tag)
        self._parked.add(tag)

    def pass_over(self, tag: int) -> None:
        """Note that all tags down to `tag` have been given out elsewhere."""
        self._next = min(self._next, tag)  # Invariant K2

    def admit(self, tag: int) -> None:
        """Note that something of ours carries `tag`, which was given out elsewhere."""
        self.pass_over(tag)
        self._live.add(tag)

    def employ(self, tag: int) -> None:
        """Note that the spare of `tag` now runs the tenant's code."""
        self._parked.discard(tag)
        self._live.add(tag)

    def retire(self, tag: int, is_empty: bool) -> None:
        """Note that what `tag` stood for is over; `is_empty`: no process is left at all."""
        self._live.discard(tag)
        self._parked.discard(tag)
        if is_empty and not self._live:
            self._ended.clear()
        else:
            self._ended.add(tag)

    @property
    def is_crowded(self) -> bool:
        """Whether it is time to call `forget_all_but`."""
        return len(self._ended) > _KEEP

    def forget_all_but(self, in_use: set[int]) -> None:
        """Forget the ended tags that no process carries any more."""
        self._ended &= in_use

    def is_alone(self, tag: int) -> bool:
        """Whether `tag` is the only one that anything living can carry, but for a spare."""
        return not self._ended and self._live <= {tag}

    def is_victim(self, tag: int, found: int | None) -> bool:
        """Whether a process with the tag `found` dies when the run of `tag` is killed.

        None is no tag: a process that is not from us, such as one that an operator brought in.
        """
        if found is None:
            return False
        if found == tag:
            return True
        return not any(found in known for known in (self._live, self._parked, self._ended))
