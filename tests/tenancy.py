"""One test's use of a backend that a whole run shares: its templates, never its sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio

from sandpool.backends.base import Backend, Box, BoxSpec
from sandpool.models import ImagePull


class Tenancy:
    """Makes sandboxes from another backend's templates, and ends no others; a `base.Backend`.

    A template takes half a second to start and a sandbox forked from it nothing of the last one,
    so that tests which are not about templates need none of their own.
    """

    def __init__(self, owner: Backend) -> None:
        """Make nothing yet; `owner` outlives this."""
        self.name = owner.name
        self._owner = owner
        self._boxes: list[Box] = []

    async def prepare(self, spec: BoxSpec) -> None:
        """Have a template for `spec`, by now or from an earlier test."""
        await self._owner.prepare(spec)

    def pulls(self) -> Mapping[str, ImagePull]:
        """Return how far the owner is with images."""
        return self._owner.pulls()

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> Box:
        """Make a sandbox, which ends with this."""
        box = await self._owner.create(spec, box_id=box_id, on_made=on_made)
        self._boxes.append(box)
        return box

    async def aclose(self) -> None:
        """Destroy every sandbox that was made here, and leave the templates for the next test."""
        boxes, self._boxes = self._boxes, []
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for box in boxes:
                    group.start_soon(box.destroy)
