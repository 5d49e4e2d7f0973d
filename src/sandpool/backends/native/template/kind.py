"""What many sandboxes of one template have in common, told once and made ready before the fork.

A new sandbox pays for whatever it works out by itself: not for the time, which is nothing, but for
a copy of every page that it touches.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any, Dict, List, Optional

from . import jail
from .branch import Brancher, Way
from .calls import Role
from .plain import Plain
from .root import WRITABLE

PLACES = (
    # name on the sandbox's tmpfs, where it appears, mode
    ("tmp", "/tmp", 0o1777),
    ("vartmp", "/var/tmp", 0o1777),
    ("shm", "/dev/shm", 0o1777),
    ("home", "/home/sandbox", 0o755),
    ("run", "/run", 0o755),
)
_TENANT_OWNS = frozenset(("home", "work"))


class Kind:
    """Sandboxes with the same limits, working directory and settings."""

    __slots__ = (
        "_interpreter",
        "has_spare",
        "is_plugged",
        "settings",
        "uid_count",
        "way",
    )

    def __init__(
        self,
        given: Dict[str, Any],
        guest: Any,
        provisions: jail.Provisions,
        brancher: Brancher,
        interpreter: Any,
    ) -> None:
        """Make it ready, with what `guest` says of itself: its module `main`.

        `interpreter` is what the guest's `training` has returned.  Raises what its `Settings` do,
        and ValueError.
        """
        self.is_plugged: bool = given["is_plugged"]
        """Whether the host connects the network to something."""
        self.uid_count: int = given["uid_count"]
        """How many host ids a sandbox has."""
        self.settings: Any = guest.Settings(given["settings"])
        self._interpreter = interpreter
        self.has_spare: bool = self.settings.has_python
        self.way = self._lay_way(given, guest, provisions, brancher)

    def _lay_way(
        self,
        given: Dict[str, Any],
        guest: Any,
        provisions: jail.Provisions,
        brancher: Brancher,
    ) -> Way:
        # All writable places are parts of one tmpfs.
        options = f"mode=755,size={given['disk_bytes']},nr_inodes={given['inodes']}"
        places = _places(given["working_mount"])
        first = jail.calls(provisions, options, places, given["covered"])
        if not self.has_spare:
            return brancher.way(provisions.program(first), None)
        first += jail.guest_calls(provisions.slots)
        tag = (ctypes.c_ulong * 2)(*[guest.early_tag()] * 2)
        second = provisions.program(
            jail.spare_calls(
                provisions.privileged,
                self.settings.working_dir,
                tag,
                self.settings.rlimits,
                guest.KEPT,
            )
        )
        parked, hurried = (
            Role(second, partial(guest.be_spare, self.settings, self._interpreter, is_hurried))
            for is_hurried in (False, True)
        )
        plain = None
        if brancher.is_compiled:
            plain = Plain(guest, self.settings, provisions, parked, hurried, tag)
        return brancher.way(provisions.program(first), parked, plain)


def _places(working_mount: Optional[str]) -> List[jail.Place]:
    places = [*PLACES]
    if working_mount:
        places.append(("work", working_mount, 0o755))
    return [
        (WRITABLE + "/" + name, target, mode, name in _TENANT_OWNS) for name, target, mode in places
    ]
