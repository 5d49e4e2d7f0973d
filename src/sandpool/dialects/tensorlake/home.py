"""What the server hands in: the manager behind a namespace, and who may speak of which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from sandpool.manager.sandbox_pool import Membership
from sandpool.models import PoolInfo, PoolSpec
from sandpool.service import Sandbox, SandboxService


class Service(SandboxService, Protocol):
    """What this dialect needs of a manager, in the words of `LocalSandboxManager`."""

    def usable_sandbox(self, sandbox_id: str) -> Sandbox:
        """Return the handle that calls by this id go to."""
        ...

    def pool_membership(self, name: str) -> Membership:
        """Return the ids of a pool's sandboxes that are ready or claimed; `PoolNotFound`."""
        ...

    def replace_idle(self, name: str) -> None:
        """Replace a pool's idle sandboxes by new ones; `PoolNotFound`."""
        ...


@dataclass(frozen=True, slots=True)
class Home:
    """Where a request's pools and sandboxes live."""

    namespace: str
    service: Service
    create_pool: Callable[[PoolSpec], Awaitable[PoolInfo]]
    """Makes a pool, within what the namespace may have."""


FindHome = Callable[[HTTPConnection, str | None], Awaitable[Home]]
"""Finds the home of a request by the namespace that its path names; None: its key's own.

Raises an `HTTPException` of 404 for a namespace that the request's key is not for.
"""

Undo = Callable[[], Awaitable[object]]
UndoIfUnheard = Callable[[HTTPConnection, Undo], None]
"""Has something called if the client leaves before it has been answered."""
