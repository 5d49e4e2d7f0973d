"""The resolver of a gate: it answers for the names of its policy, and opens what they stand for.

It asks the host's own resolvers, from the host's network; sandboxes reach nobody else on port 53
unless their policy lists him.  An address on guarded ground is left out of an answer unless it is
listed itself: a name cannot be made to point a sandbox at the host's neighbours.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, cast

import dns.asyncresolver
import dns.exception
import dns.resolver

from sandpool.backends.native.egress import names
from sandpool.backends.native.egress.rules import Opening, is_guarded, is_listed

_PATIENCE = 5.0
"""Seconds for the host's resolvers to answer."""
_MOST_EACH = 32
"""Questions of one sandbox at one time; more are dropped, and asked again."""
_MOST = 512
_CONNECTIONS = 64
_QUESTIONS = 16
"""Questions on one connection, of which packets hold many."""
_IDLE = 10.0
"""Seconds that a connection may be without a question."""


class NoAnswer(Exception):
    """Nobody says what a name stands for; `code` is what the sandbox is told."""

    def __init__(self, code: int) -> None:
        """Say so with `code`."""
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for, and for how many seconds."""

    addresses: list[IPv4Address]
    ttl: int


async def ask_host(name: str) -> Found:
    """Ask the resolvers of this host for a name's addresses; `NoAnswer`."""
    # Made anew for each question: the host may have got other resolvers meanwhile.
    try:
        answer = await dns.asyncresolver.Resolver().resolve(
            f"{name}.", "A", search=False, lifetime=_PATIENCE, raise_on_no_answer=False
        )
    except dns.resolver.NXDOMAIN:
        raise NoAnswer(names.NO_SUCH_NAME) from None
    except (dns.exception.DNSException, OSError):
        raise NoAnswer(names.SERVER_FAILURE) from None
    records = cast("Iterable[Any]", answer.rrset or ())
    addresses = [IPv4Address(record.address) for record in records]
    return Found(addresses, answer.chaining_result.minimum_ttl)


class Resolver:
    """Answers the sandboxes of one gate."""

    def __init__(
        self,
        openings: Sequence[Opening],
        *,
        host: Callable[[], Collection[IPv4Address]],
        learn: Callable[[int, Sequence[IPv4Address], int], None],
        ask: Callable[[str], Awaitable[Found]] = ask_host,
    ) -> None:
        """Serve a policy.

        Args:
            openings: The policy.
            host: Returns the host's own addresses.
            learn: Opens addresses for the opening of that number, for so many seconds.
            ask: Returns what a name stands for.
        """
        self._openings = openings
        self._host = host
        self._learn = learn
        self._ask = ask
        self._asking: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def answer(self, packet: bytes) -> bytes | None:
        """Return the answer to a query of a sandbox; None for what is none."""
        try:
            query = names.parse(packet)
        except names.Malformed:
            return None
        if query.fault:
            return names.reply(query, query.fault)
        assert query.name is not None
        if not any(opening.names(query.name) for opening in self._openings):
            return names.reply(query, names.REFUSED)
        if query.kind != names.A:
            return names.reply(query, names.NO_ERROR)  # the name is there; IPv6 is closed
        try:
            found = await self._ask(query.name)
        except NoAnswer as error:
            return names.reply(query, error.code)
        return self._open(query, query.name, found)

    def _open(self, query: names.Query, name: str, found: Found) -> bytes:
        """Let through what a name stands for, and say what that is."""
        host = self._host()
        shown: list[IPv4Address] = []
        learned: list[IPv4Address] = []
        for address in found.addresses[: names.MOST_ADDRESSES]:
            if not is_guarded(address, host):
                learned.append(address)
                shown.append(address)
            elif is_listed(self._openings, address, host):
                shown.append(address)
        if found.addresses and not shown:
            return names.reply(query, names.REFUSED)
        seconds, ttl = names.lifetime(found.ttl)
        try:
            for number, opening in enumerate(self._openings):
                if learned and opening.names(name):
                    self._learn(number, learned, seconds)
        except OSError:
            # It has no room: answering would only have the sandbox wait for a refused connection.
            return names.reply(query, names.SERVER_FAILURE)
        return names.reply(query, names.NO_ERROR, shown, ttl)

    async def serve(self, datagrams: socket.socket, connections: socket.socket) -> None:
        """Answer on these sockets, from now on."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), sock=datagrams
        )
        self._server = await asyncio.start_server(
            self._converse, sock=connections, limit=names.MAX_QUERY + 2
        )

    def close(self) -> None:
        """Answer no more."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def receive(
        self, packet: bytes, sender: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        """Take a datagram of a sandbox, unless it or all have enough on their way."""
        if self._is_busy(sender[0]):
            return
        self._asking[sender[0]] += 1
        task = asyncio.get_running_loop().create_task(self._respond(packet, sender, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(
        self, packet: bytes, sender: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        try:
            answer = await self.answer(packet)
            if answer is not None and not transport.is_closing():
                transport.sendto(answer, sender)
        finally:
            self._finish(sender[0])

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one connection, one after the other."""
        sender: str = writer.get_extra_info("peername")[0]
        if self._is_busy(sender) or self._connections >= _CONNECTIONS:
            writer.close()
            return
        self._asking[sender] += 1
        self._connections += 1
        try:
            with suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                for _ in range(_QUESTIONS):
                    if not await self._converse_once(reader, writer):
                        break
        finally:
            self._connections -= 1
            self._finish(sender)
            writer.close()

    async def _converse_once(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(_IDLE):
            length = int.from_bytes(await reader.readexactly(2))
            if length > names.MAX_QUERY:
                return False
            packet = await reader.readexactly(length)
        answer = await self.answer(packet)
        if answer is None:
            return False
        writer.write(len(answer).to_bytes(2) + answer)
        async with asyncio.timeout(_IDLE):
            await writer.drain()
        return True

    def _is_busy(self, sender: str) -> bool:
        return self._asking[sender] >= _MOST_EACH or self._asking.total() >= _MOST

    def _finish(self, sender: str) -> None:
        self._asking[sender] -= 1
        if not self._asking[sender]:
            del self._asking[sender]


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams to a resolver."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._resolver.receive(data, addr, self._transport)
