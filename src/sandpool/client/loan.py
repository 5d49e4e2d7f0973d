"""`RemoteLoan`: a sandbox of a server, borrowed for the length of an `async with` block."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import anyio
from anyio.abc import TaskStatus

from sandpool.client.remote_sandbox import RemoteSandbox
from sandpool.client.transport import Transport
from sandpool.clock import Clock
from sandpool.errors import LeaseNotFound, LeaseOver, SandpoolError
from sandpool.manager.runtime import Runtime
from sandpool.wire.requests import Leased

_log = logging.getLogger(__name__)

_RETURN_BOUND = 10.0
"""Seconds that giving back may take; the server does it by itself when nobody keeps the lease."""

_CALLS_PER_SPAN = 4
"""How often a lease is kept alive in the time that it lasts without: two calls may fail, and the
third still comes in time."""


class HeldLease:
    """A lease that is kept alive by a background task until it is given back."""

    def __init__(
        self, transport: Transport, runtime: Runtime, clock: Clock, leased: Leased
    ) -> None:
        """Describe it; `keep` begins to keep it alive."""
        self._transport = transport
        self._runtime = runtime
        self._clock = clock
        self._leased = leased
        self._is_over = False
        self.sandbox = RemoteSandbox(transport, leased.sandbox, leased.lease_id)

    async def keep(self) -> None:
        """Keep it alive from now on, on whichever event loop its manager is used."""
        await self._runtime.add(self._leased.lease_id, self._keep_alive)

    async def give_back(self, *, spoilt: bool) -> None:
        """Give the sandbox back; no effect once it has been.  Shielded, and bounded.

        Failures are logged: a lease that nobody keeps alive ends by itself.
        """
        if self._is_over:
            return
        self._is_over = True
        self._runtime.remove(self._leased.lease_id)
        with anyio.move_on_after(_RETURN_BOUND, shield=True) as scope:
            try:
                await self._transport.call(
                    "DELETE", self._path, params={"spoilt": True} if spoilt else None
                )
            except LeaseNotFound:
                _log.debug("lease %s had ended before it was given back", self._leased.lease_id)
            except SandpoolError as error:
                _log.warning("lease %s is left to end by itself: %s", self._leased.lease_id, error)
        if scope.cancelled_caught:
            _log.warning("lease %s is left to end by itself", self._leased.lease_id)

    @property
    def _path(self) -> str:
        return f"/v1/leases/{self._leased.lease_id}"

    async def _keep_alive(self, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        interval = self._leased.keep_alive / _CALLS_PER_SPAN
        while True:
            await self._clock.sleep(interval)
            try:
                await self._transport.call("POST", f"{self._path}/keep-alive", timeout=interval)
            except LeaseNotFound:
                # Its holder is told by the next call through it.
                _log.warning("lease %s has ended", self._leased.lease_id)
                return
            except SandpoolError as error:
                _log.warning("lease %s was not kept alive: %s", self._leased.lease_id, error)


class RemoteLoan(AbstractAsyncContextManager[RemoteSandbox]):
    """A sandbox for the length of an `async with` block."""

    def __init__(
        self,
        borrow: Callable[[], Awaitable[HeldLease]],
        forget: Callable[[HeldLease], None],
    ) -> None:
        """Know how to borrow; nothing is taken before the block begins."""
        self._borrow = borrow
        self._forget = forget
        self._held: HeldLease | None = None

    async def __aenter__(self) -> RemoteSandbox:
        """Borrow, and begin to keep the lease alive."""
        if self._held is not None:
            raise LeaseOver("a lease is for one `async with` block; make another one")
        self._held = await self._borrow()
        try:
            await self._held.keep()
        except BaseException:
            # Cancel: nobody has the sandbox yet.
            await self._end(spoilt=False)
            raise
        return self._held.sandbox

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back; after a cancellation, never to be used again."""
        cancelled = anyio.get_cancelled_exc_class()
        await self._end(spoilt=kind is not None and issubclass(kind, cancelled))

    async def _end(self, *, spoilt: bool) -> None:
        if self._held is not None:
            self._forget(self._held)
            await self._held.give_back(spoilt=spoilt)
