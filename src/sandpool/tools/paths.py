"""`PathPolicy`: which paths `file_operation` may touch.  Pure.

Paths are judged as the sandbox's own kernel resolves them, so a link out of an allowed directory
leads nowhere.  A program that changes links while the call is under way can still win the race:
this is a policy for well-meaning callers, and what keeps a tenant in is the sandbox.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """An entry stands for a path and all below it; what is blocked stays blocked."""

    allowed: tuple[str, ...] | None = None
    """None: every path that is not blocked."""
    blocked: tuple[str, ...] = ()
    extensions: tuple[str, ...] | None = None
    """None: all; else the endings of names that may be created, read, written and deleted."""

    @property
    def is_open(self) -> bool:
        """Whether it lets everything pass."""
        return self.allowed is None and not self.blocked and self.extensions is None

    @property
    def roots(self) -> tuple[str, ...]:
        """Return every path that it names."""
        return (*(self.allowed or ()), *self.blocked)

    def resolved(self, roots: tuple[str, ...]) -> PathPolicy:
        """Return the policy with `roots`, one for each of its own, beside them.

        Both count: the path that was configured, and where its links lead.
        """
        count = len(self.allowed or ())
        allowed = None if self.allowed is None else (*self.allowed, *roots[:count])
        return PathPolicy(allowed, (*self.blocked, *roots[count:]), self.extensions)

    def refusal(self, path: str, *, checks_extension: bool, is_delete: bool = False) -> str | None:
        """Say why a resolved, absolute path may not be touched; None if it may."""
        blocked = [posixpath.normpath(root) for root in self.blocked]
        if any(_is_below(path, root) for root in blocked):
            return f"Path {path} is not allowed"
        if is_delete and any(_is_below(root, path) for root in blocked):
            return f"Path {path} is not allowed: something below it is protected"
        if self.allowed is not None and not any(
            _is_below(path, posixpath.normpath(root)) for root in self.allowed
        ):
            return f"Path {path} is not allowed"
        if checks_extension and not self._has_extension(path):
            return f"Extension of {path} is not allowed"
        return None

    def _has_extension(self, path: str) -> bool:
        if self.extensions is None:
            return True
        name = posixpath.basename(path).lower()
        found = posixpath.splitext(name)[1]
        endings = ["." + ending.lower().lstrip(".") if ending else "" for ending in self.extensions]
        # `endswith` for entries such as ".tar.gz".
        return any(
            name.endswith(ending) and name != ending if ending else not found for ending in endings
        )


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
