"""What many sandboxes of one template have in common, told once and made ready before the fork.

A new sandbox pays for whatever it works out by itself: not for the time, which is nothing, but for
a copy of every page that it touches.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

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

Place = Tuple[str, str, int, bool]
"""Where it is made, where it appears, its mode, and whether it is the tenant's own."""


class Kind:
    """Sandboxes with the same limits, working directory and settings."""

    __slots__ = ("covered", "is_plugged", "options", "places", "settings", "uid_count")

    def __init__(
        self, given: Dict[str, Any], make_settings: Callable[[Dict[str, Any]], Any]
    ) -> None:
        """Make it ready; `make_settings` is the guest's. Raises what that does."""
        self.options = f"mode=755,size={given['disk_bytes']},nr_inodes={given['inodes']}"
        """Of the tmpfs that all writable places are parts of."""
        self.places = _places(given["working_mount"])
        self.covered: List[str] = given["covered"]
        """Directories that a writable place hides, and that are to be seen all the same."""
        self.is_plugged: bool = given["is_plugged"]
        """Whether the host connects the network to something."""
        self.uid_count: int = given["uid_count"]
        """How many host ids a sandbox has."""
        self.settings: Any = make_settings(given["settings"])


def _places(working_mount: Optional[str]) -> List[Place]:
    places = [*PLACES]
    if working_mount:
        places.append(("work", working_mount, 0o755))
    return [
        (WRITABLE + "/" + name, target, mode, name in _TENANT_OWNS) for name, target, mode in places
    ]
