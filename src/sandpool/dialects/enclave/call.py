"""What a route of this dialect gets of the server that mounts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandpool.service import SandboxService

FindService = Callable[..., Awaitable[SandboxService]]
"""A FastAPI dependency that returns the sandboxes which a request may see."""

UndoIfUnheard = Callable[[HTTPConnection, Callable[[], Awaitable[object]]], None]
"""Registers what takes back a request's effect if its client leaves before it has the answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and the sandboxes that it may see."""

    service: SandboxService
    uptime: float
    """Seconds that the server has been running."""
    docker_as_native: bool
    """Whether requests for containers get native sandboxes."""
    connection: HTTPConnection
    undo_if_unheard: UndoIfUnheard

    def undo(self, step: Callable[[], Awaitable[object]]) -> None:
        """Have `step` called if the client leaves before it has been sent the whole answer."""
        self.undo_if_unheard(self.connection, step)


def current_call(connection: HTTPConnection) -> Call:
    """Return what the dependency of the whole router has left in the request's state."""
    call: Call = connection.state.enclave
    return call


CurrentCall = Annotated[Call, Depends(current_call)]
