"""`Gate`: all that one lease of a sandbox has of addresses, and its end.

A gate belongs to one lease, not to a sandbox's id or a port: whatever it let in is cut when the
lease ends, and its tokens open nothing afterwards, whoever has the id and the port then.

    T1  A connection is let in only while the gate is open, and is cut when it closes.
    T2  There are never more than `MOST_VISITS` connections.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import anyio

from sandpool.errors import NoCapacity, SandpoolError
from sandpool.proxy.address import TOKEN_LENGTH, Address
from sandpool.service import ByteStream

Dial = Callable[[int], Awaitable[ByteStream]]
"""Connects to a port of the sandbox, for as long as the lease lasts."""

MOST_VISITS = 256
"""Connections from outside into one sandbox at one time."""

_RETRY_AFTER = 1.0


class Gate:
    """The way into the ports of one sandbox, for the length of one lease."""

    def __init__(self, sandbox_id: str, dial: Dial) -> None:
        """Open it."""
        self.sandbox_id = sandbox_id
        self._dial: Dial | None = dial
        self.private: set[int] = set()
        """Ports that are reached with their token only, whoever asks."""
        self._secret = os.urandom(32)
        self._ended: SandpoolError | None = None
        self._visits: set[anyio.CancelScope] = set()
        self._on_end: list[Callable[[], None]] = []

    @property
    def ended(self) -> SandpoolError | None:
        """Why it is closed; None while it is open."""
        return self._ended

    @property
    def visits(self) -> int:
        """How many connections there are."""
        return len(self._visits)

    async def dial(self, port: int) -> ByteStream:
        """Connect to a port; raises what the gate was closed with, and what dialling raises."""
        self.check()
        assert self._dial is not None
        return await self._dial(port)

    def token(self, port: int) -> str:
        """Return what opens this port, and no other, until the gate closes."""
        # Every request through an address comes here.  BLAKE2 takes a key by itself; OpenSSL looks
        # for its HMAC first, which takes longer than to compute it.
        size = TOKEN_LENGTH // 2
        return hashlib.blake2s(str(port).encode(), key=self._secret, digest_size=size).hexdigest()

    def address(self, port: int) -> Address:
        """Return the address of a port, with its token."""
        return Address(self.sandbox_id, port, self.token(port))

    def is_opened_by(self, port: int, token: str) -> bool:
        """Whether this is the port's token; how long it takes tells nothing."""
        return hmac.compare_digest(self.token(port).encode(), token.encode())

    @contextmanager
    def visit(self) -> Generator[None]:
        """Be a connection for the length of a `with` block, which is cut when the gate closes.

        Raises what the gate was closed with, or `NoCapacity`.
        """
        self.check()
        if len(self._visits) >= MOST_VISITS:  # Invariant T2
            raise NoCapacity(
                f"sandbox {self.sandbox_id} has {MOST_VISITS} connections, all that it may",
                retry_after=_RETRY_AFTER,
            )
        with anyio.CancelScope() as scope:
            self._visits.add(scope)
            try:
                yield
            finally:
                self._visits.discard(scope)
        if scope.cancelled_caught:
            self.check()

    def check(self) -> None:
        """Raise what it was closed with, if it is closed."""
        if self._ended is not None:
            raise self._ended.with_traceback(None)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it closes; at once if it is closed.  It must not wait."""
        if self._ended is None:
            self._on_end.append(callback)
        else:
            callback()

    def close(self, reason: SandpoolError) -> None:
        """Cut every connection, and let nothing in any more; the first reason stays."""
        if self._ended is not None:
            return
        self._ended = reason
        # Whoever remembers that this gate was there need not keep the sandbox in memory.
        self._dial = None
        for scope in self._visits:  # Invariant T1
            scope.cancel()
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()
