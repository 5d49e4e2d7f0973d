"""`AddressBook`: which lease an address leads to, and what became of those that have ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from sandpool.errors import SandboxNotFound
from sandpool.proxy.address import Address
from sandpool.proxy.exchange import Connections
from sandpool.proxy.gate import Gate
from sandpool.server.tenants import Tenant

_REMEMBERED = 10_000
"""Leases that have ended, the latest of them."""

_CLOSE_BOUND = 5.0
"""Seconds that connections have to close when the server stops."""


@dataclass(slots=True, eq=False)
class Entry:
    """One lease that has addresses."""

    tenant: Tenant
    gate: Gate
    connections: Connections


class AddressBook:
    """The leases that addresses were given out for, by their sandboxes' ids.

    An id can be that of several: one after another, and in several namespaces at one time.  A token
    tells them apart.
    """

    def __init__(self) -> None:
        """Know none yet; `run` must be going while requests are served."""
        self._group: TaskGroup | None = None
        self._entries: dict[Gate, Entry] = {}
        self._gates: dict[str, set[Gate]] = {}
        self._ended: OrderedDict[Gate, None] = OrderedDict()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Close what ended leases leave, for the length of an `async with` block."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                yield
            finally:
                self._group = None
                group.cancel_scope.cancel()
                await self._close_all()

    def enter(self, tenant: Tenant, gate: Gate) -> Entry:
        """Return the entry of a lease, made when it is first asked for."""
        entry = self._entries.get(gate)
        if entry is None:
            gate.check()
            entry = self._entries[gate] = Entry(tenant, gate, Connections(gate.dial))
            self._gates.setdefault(gate.sandbox_id, set()).add(gate)
            gate.on_end(lambda: self._close(gate))
        return entry

    def find(self, address: Address) -> Entry:
        """Return the lease whose token an address has.

        Raises `SandboxNotFound`, for a wrong token too, and what the lease ended with if it has.
        """
        token = address.token or ""
        for gate in self._gates.get(address.sandbox, ()):
            if gate.is_opened_by(address.port, token):
                gate.check()
                return self._entries[gate]
        raise SandboxNotFound(f"Sandbox {address.sandbox} not found, or not by this token")

    async def _close_all(self) -> None:
        with anyio.move_on_after(_CLOSE_BOUND, shield=True):
            async with anyio.create_task_group() as group:
                for entry in self._entries.values():
                    group.start_soon(entry.connections.aclose)

    def _close(self, gate: Gate) -> None:
        entry = self._entries.pop(gate)
        # Without a group the server is stopping, and every sandbox ends.
        if self._group is not None:
            self._group.start_soon(entry.connections.aclose)
        self._ended[gate] = None
        if len(self._ended) > _REMEMBERED:
            oldest, _ = self._ended.popitem(last=False)
            gates = self._gates[oldest.sandbox_id]
            gates.discard(oldest)
            if not gates:
                del self._gates[oldest.sandbox_id]
