"""`SandboxManager`: what managers derive from that `SandboxManagerFactory` can make."""

from __future__ import annotations

from typing import Self

from sandpool.models import SandboxManagerConfig
from sandpool.service import SandboxService


class SandboxManager(SandboxService):
    """A `SandboxService` with a configuration, to be used by `async with`."""

    def __init__(self, config: SandboxManagerConfig | None = None) -> None:
        """Keep the configuration; nothing runs before `start`."""
        self.config = config if config is not None else SandboxManagerConfig()

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop it."""
        await self.stop()
