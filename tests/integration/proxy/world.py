"""Servers that stand in for those inside sandboxes, and the way to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11
import httpx

from sandpool.backends.base import Backend, Box, BoxSpec
from sandpool.errors import DialFailed
from sandpool.service import ByteStream
from sandpool.testing import FakeBackend, ManualClock
from sandpool.testing.box import FakeBox

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = tuple[int, list[tuple[str, str]], bytes]
Respond = Callable[[h11.Request, bytes], Answer]

Headers = dict[str, str] | None

PORT = 8080


class SocketStream:
    """A connection to a server of the test; implements `ByteStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        return await self._reader.read(32_768)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_eof(self) -> None:
        self._writer.write_eof()

    async def aclose(self) -> None:
        self._writer.transport.abort()
        await close(self._writer)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Machine:
    """The inside of every sandbox: servers by port, and how often they were dialled."""

    def __init__(self) -> None:
        self.dials: list[int] = []
        self.backends: list[FakeBackend] = []
        self._servers: list[asyncio.Server] = []
        self._ports: dict[int, tuple[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialled = asyncio.Event()

    def new_backend(self) -> Backend:
        backend = _LoopbackBackend(self)
        self.backends.append(backend)
        return backend

    async def serve(self, port: int, handler: Handler) -> None:
        """Have `handler` serve connections to `port` inside the sandboxes."""

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(handle(reader, writer))
            self._tasks.add(task)
            await asyncio.wait([task])
            self._tasks.discard(task)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                await close(writer)

        server = await asyncio.start_server(counted, "127.0.0.1", 0)
        self._servers.append(server)
        self.lead(port, *server.sockets[0].getsockname())

    def lead(self, port: int, host: str, number: int) -> None:
        """Have `port` inside the sandboxes lead to a server of the test."""
        self._ports[port] = (host, number)

    async def clear(self) -> None:
        """Have nothing listen at any port, and no connection."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._ports.clear()
        for task in list(self._tasks):
            task.cancel()
        await self.wait_closed()
        self.dials.clear()

    def stop(self, port: int) -> None:
        """Have nothing listen at `port` any more."""
        del self._ports[port]

    async def dial(self, port: int) -> ByteStream:
        self.dials.append(port)
        self._dialled.set()
        if port not in self._ports:
            raise DialFailed(f"port {port}: Connection refused")
        return SocketStream(*await asyncio.open_connection(*self._ports[port]))

    async def wait_dialled(self, count: int) -> None:
        """Wait until there were so many dials."""
        while len(self.dials) < count:
            self._dialled.clear()
            await self._dialled.wait()

    async def wait_closed(self) -> None:
        """Wait until no connection is open any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            # Whoever waits for those tasks is woken in the loop's next turn.
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.clear()


class _LoopbackBackend(FakeBackend):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> Any:
        box = await super().create(spec, box_id=box_id, on_made=on_made)
        return _LoopbackBox(box, self._machine)


class _LoopbackBox:
    """A fake box whose ports are those of the machine."""

    def __init__(self, box: FakeBox, machine: Machine) -> None:
        self._box: Box = box
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._box, name)

    async def dial(self, port: int) -> ByteStream:
        if self._box.died is not None:
            raise self._box.died
        return _MortalStream(await self._machine.dial(port), self._box)


class _MortalStream:
    """A connection that fails with its box."""

    def __init__(self, stream: ByteStream, box: Box) -> None:
        self._stream = stream
        self._box = box

    async def receive(self) -> bytes:
        data = await self._stream.receive()
        if not data and self._box.died is not None:
            raise self._box.died
        return data

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class World:
    """A server and a client of it."""

    url: str
    client: httpx.AsyncClient
    machine: Machine
    clock: ManualClock
    made: list[tuple[str, Headers]] = field(default_factory=list[tuple[str, Headers]])
    """The sandboxes, and the headers of who made them."""

    async def clear(self) -> None:
        """Delete every sandbox and pool, and end what listens in them."""
        for sandbox_id, headers in self.made:
            await self.client.delete(f"/v1/sandboxes/{sandbox_id}", headers=headers)
        self.made.clear()
        await self.client.post("/v1/cleanup")
        await self.machine.clear()

    async def new_sandbox(self, sandbox_id: str | None = None, headers: Headers = None) -> str:
        body = {} if sandbox_id is None else {"id": sandbox_id}
        answer = await self.client.post("/v1/sandboxes", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        made = str(answer.json()["id"])
        self.made.append((made, headers))
        return made

    async def address(self, sandbox_id: str, headers: Headers = None) -> dict[str, Any]:
        """Return what the API says of `PORT`."""
        answer = await self.client.get(f"/v1/sandboxes/{sandbox_id}/ports/{PORT}", headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def raw(self, data: bytes) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes."""
        parts = httpx.URL(self.url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        try:
            writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            await close(writer)


def handler_of(respond: Respond, *, seen: list[tuple[h11.Request, bytes]] | None = None) -> Handler:
    """Return a handler that speaks HTTP with keep-alive, and answers what `respond` returns."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        while (found := await _read_request(http, reader)) is not None:
            if seen is not None:
                seen.append(found)
            status, headers, content = respond(*found)
            if not {name.lower() for name, _ in headers} & {"content-length", "transfer-encoding"}:
                headers = [*headers, ("content-length", str(len(content)))]
            writer.write(
                (http.send(h11.Response(status_code=status, headers=headers)) or b"")
                + (http.send(h11.Data(data=b"" if found[0].method == b"HEAD" else content)) or b"")
                + (http.send(h11.EndOfMessage()) or b"")
            )
            await writer.drain()
            if http.our_state is h11.MUST_CLOSE:
                return
            http.start_next_cycle()

    return handle


async def _read_request(
    http: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request, bytes] | None:
    """Return a request with its body; None at the end of the connection."""
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body)
        else:
            return None


def echo(request: h11.Request, body: bytes) -> Answer:
    """Answer with what was asked."""
    return (
        200,
        [("content-type", "text/plain")],
        b"%b %b %b"
        % (
            request.method,
            request.target,
            body,
        ),
    )
