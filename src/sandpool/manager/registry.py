"""Who holds what: every sandbox of a manager by its id, and whose it is at the moment.

G1  An id belongs to one sandbox.
G2  There are never more than `limit` sandboxes; one counts from before it is started.
G3  A tenure exists only for a sandbox that is here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from sandpool.errors import (
    CreateFailed,
    LeaseOver,
    NoCapacity,
    SandboxExists,
    SandboxLeased,
    SandboxNotActive,
    SandboxNotFound,
    SandpoolError,
)
from sandpool.manager.sandbox import ACTIVE, Sandbox

_RETRY_AFTER = 1.0
"""Seconds after which a caller that met a full manager might try again."""

_REMEMBERED = 10_000
"""Ids of sandboxes that have ended, the latest of them."""


@dataclass(slots=True, eq=False)
class Tenure:
    """What a pool's sandbox is doing."""

    pool: str
    """The pool that it belongs to."""
    claimed: Sandbox | None = None
    """The handle of whoever claimed it, which calls by id go through; None: idle, or lent."""
    over: SandpoolError | None = None
    """What its claim has ended with: it is not lent again, and will soon be gone."""


class Registry:
    """Sandboxes by id."""

    def __init__(self, limit: int) -> None:
        """Hold up to `limit` sandboxes."""
        self.limit = limit
        self.sandboxes: dict[str, Sandbox] = {}
        """Every sandbox, in the order in which they were made."""
        self._tenures: dict[str, Tenure] = {}
        self._ended: OrderedDict[str, SandpoolError | None] = OrderedDict()

    @property
    def room(self) -> int:
        """How many more sandboxes there may be."""
        return max(0, self.limit - len(self.sandboxes))

    def add(self, sandbox: Sandbox, pool: str | None = None) -> None:
        """Take in a sandbox that is about to be started; `SandboxExists`, `NoCapacity`."""
        if sandbox.id in self.sandboxes:
            raise SandboxExists(f"Sandbox {sandbox.id} already exists")
        if not self.room:
            raise NoCapacity(
                f"there are {self.limit} sandboxes already, the most that this manager may have "
                "(max_sandboxes)",
                retry_after=_RETRY_AFTER,
            )
        self.sandboxes[sandbox.id] = sandbox
        self._ended.pop(sandbox.id, None)
        if pool is not None:
            self._tenures[sandbox.id] = Tenure(pool)

    def remove(self, sandbox_id: str) -> None:
        """Forget a sandbox, but for the fact that it was there, and how it ended."""
        if sandbox_id in self.sandboxes:
            self._ended[sandbox_id] = self.farewell(sandbox_id)
            del self.sandboxes[sandbox_id]
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
        self._tenures.pop(sandbox_id, None)

    def farewell(self, sandbox_id: str) -> SandpoolError | None:
        """Return what calls by an id raise because its sandbox has ended; None: it has not.

        Of those that are not here any more, only the latest are remembered.
        """
        if sandbox_id in self._ended:
            return self._ended[sandbox_id] or LeaseOver(f"sandbox {sandbox_id} has ended")
        tenure = self._tenures.get(sandbox_id)
        if tenure is not None and tenure.claimed is None:
            return tenure.over
        return self.find(sandbox_id).farewell() if sandbox_id in self.sandboxes else None

    def detach(self, sandbox_id: str) -> None:
        """Keep a pool's sandbox as a record of its own, when its pool gives it up."""
        self._tenures.pop(sandbox_id, None)

    def tenure(self, sandbox_id: str) -> Tenure | None:
        """Return what a pool's sandbox is doing; None for one that belongs to no pool."""
        return self._tenures.get(sandbox_id)

    def check_present(self, sandbox: Sandbox) -> None:
        """Raise `CreateFailed` if this sandbox was deleted while it was being started."""
        if self.sandboxes.get(sandbox.id) is not sandbox:
            raise CreateFailed(f"sandbox {sandbox.id} was deleted while it was being started")

    def is_member(self, sandbox: Sandbox) -> bool:
        """Whether this very object belongs to a pool."""
        return sandbox.id in self._tenures and self.sandboxes.get(sandbox.id) is sandbox

    def own(self) -> list[Sandbox]:
        """Return the sandboxes that belong to no pool."""
        return [box for box in self.sandboxes.values() if box.id not in self._tenures]

    def members(self, pools: Iterable[str]) -> list[Sandbox]:
        """Return the sandboxes of these pools."""
        names = frozenset(pools)
        return [self.sandboxes[key] for key, held in self._tenures.items() if held.pool in names]

    def find(self, sandbox_id: str) -> Sandbox:
        """Return a sandbox as its owner sees it, whatever its state; `SandboxNotFound`."""
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxNotFound(f"Sandbox {sandbox_id} not found")
        tenure = self._tenures.get(sandbox_id)
        return sandbox if tenure is None or tenure.claimed is None else tenure.claimed

    def usable(self, sandbox_id: str) -> Sandbox:
        """Return a sandbox to run something in.

        Raises `SandboxNotFound`, `SandboxNotActive`, and `SandboxLeased` for one that is lent, or
        waits in its pool to be lent to somebody who may expect it clean.
        """
        sandbox = self.find(sandbox_id)
        if sandbox.status not in ACTIVE:
            status = sandbox.status.value
            raise SandboxNotActive(f"Sandbox {sandbox_id} is not active (status: {status})")
        tenure = self._tenures.get(sandbox_id)
        if tenure is not None and tenure.claimed is None:
            raise SandboxLeased(withheld_text(sandbox_id, tenure.pool))
        return sandbox


def withheld_text(sandbox_id: str, pool: str) -> str:
    """Say why a pool's sandbox cannot be used by its id."""
    return (
        f"Sandbox {sandbox_id} belongs to pool {pool}, which lends it; "
        "use execute_tool_in_pool, lease or claim"
    )
