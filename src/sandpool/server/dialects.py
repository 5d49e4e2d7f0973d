"""Which dialects the server speaks, and below which paths."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from sandpool.clock import Clock
from sandpool.dialects import enclave, tensorlake
from sandpool.errors import InvalidSpec
from sandpool.server.context import find_service
from sandpool.server.departure import undo_if_unheard
from sandpool.server.settings import ServerSettings


def mount(app: FastAPI, settings: ServerSettings, clock: Clock) -> None:
    """Serve each dialect below its own name, and one at the root too if the operator says so.

    Raises `InvalidSpec` for a `root_dialect` that there is none of.
    """

    def uptime() -> float:
        since: float = app.state.started_at
        return clock.now() - since

    dialects: dict[str, APIRouter] = {
        "enclave": enclave.create_router(
            find_service,
            uptime=uptime,
            undo_if_unheard=undo_if_unheard,
            docker_as_native=settings.docker_as_native,
        ),
        "tensorlake": tensorlake.control_plane(),
    }
    # What names its namespace collides with nothing, so it is always at the root.
    app.include_router(dialects["tensorlake"], prefix=tensorlake.NAMESPACED)
    for name, router in dialects.items():
        app.include_router(router, prefix=f"/{name}")
    if settings.root_dialect is None:
        return
    if settings.root_dialect not in dialects:
        known = ", ".join(dialects)
        raise InvalidSpec(f"root_dialect: {settings.root_dialect!r} is none of {known}")
    app.include_router(dialects[settings.root_dialect])
