"""`Factory`: what a pool needs to know of the things that it holds."""

from __future__ import annotations

from typing import Protocol, TypeVar

T = TypeVar("T")


class Factory(Protocol[T]):
    """Makes, examines, cleans and destroys items.  The pool bounds the time of every call."""

    async def create(self) -> T:
        """Make an item.

        Called off every caller's path.  Failed or cancelled, it leaves nothing behind.
        """
        ...

    async def check(self, item: T) -> None:
        """Raise if the item is not healthy; it is destroyed then and replaced.

        Called with an item that nobody holds: now and then, and before a hand-over that wants it.
        """
        ...

    async def reset(self, item: T) -> None:
        """Make an item that was lent as good as new, or raise: then it is destroyed.

        Called after a lease where the policy says `recycle="reset"`.
        """
        ...

    async def destroy(self, item: T) -> None:
        """End an item.

        Called once for each item that `create` returned, whatever state it is in, shielded from
        cancellation; a second time only if the event loop died under the first.  What it raises is
        logged.
        """
        ...
