"""The Docker Engine's HTTP interface, as far as we use it: requests, attached streams.

One connection per request, over h11 and a plain socket: nothing here belongs to an event loop, so
one manager may live through several `asyncio.run` calls, and what an attach leaves us is the bare
socket, with the kernel's own back pressure and no reader in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import anyio
import h11

from sandpool.errors import BackendUnavailable

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"

_READ = 64 * 1024
_MAKE_TIMEOUT = 60.0
_FIRST_REFUSAL = 400
_MAX_BODY = 64 * 1024 * 1024
_MAX_LINE = 1024 * 1024
_ALTERNATIVE = (
    "start it, say where it listens with DOCKER_HOST=unix:///path, or use the native backend"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said to one request."""

    status: int
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the engine did as it was asked; "not modified" is "it was so already"."""
        return self.status < _FIRST_REFUSAL

    @property
    def message(self) -> str:
        """The engine's reason for a refusal, in one line."""
        try:
            text = self.fields().get("message")
        except BackendUnavailable:
            text = None
        if not isinstance(text, str):
            text = self.body.decode("utf-8", "replace") or f"status {self.status}"
        return " ".join(text.split())[:1000]

    def fields(self) -> Mapping[str, Any]:
        """Return a body that is a JSON object; `BackendUnavailable` if it is not."""
        found = self._json()
        if not isinstance(found, dict):
            raise BackendUnavailable("the Docker Engine's answer is not a JSON object")
        return cast("dict[str, Any]", found)

    def rows(self) -> list[Mapping[str, Any]]:
        """Return a body that is a list of objects; `BackendUnavailable` if it is not."""
        found = self._json()
        if not isinstance(found, list):
            raise BackendUnavailable("the Docker Engine's answer is not a JSON list")
        return cast("list[Mapping[str, Any]]", found)

    def _json(self) -> object:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BackendUnavailable("the Docker Engine's answer is not JSON") from error


class _Exchange:
    """One HTTP request on a connection of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, *events: h11.Event) -> None:
        # At once: an engine may answer a request, and close, before all the rest has been sent.
        data = b"".join(self._http.send(event) or b"" for event in events)
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> h11.Event | type[h11.PAUSED]:
        loop = asyncio.get_running_loop()
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await loop.sock_recv(self.sock, _READ))
        assert event is not h11.NEED_DATA
        return event  # type: ignore[return-value]

    async def head(self) -> h11.Response | h11.InformationalResponse:
        while True:
            event = await self.receive()
            if isinstance(event, h11.Response):
                return event
            # 101 ends HTTP on this connection; any other of the kind announces nothing we need.
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection ended before an answer")

    async def pieces(self) -> AsyncGenerator[bytes]:
        while isinstance(event := await self.receive(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise h11.RemoteProtocolError("the connection ended in the middle of an answer")

    async def body(self) -> bytes:
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > _MAX_BODY:
                raise h11.RemoteProtocolError("the answer is too large")
        return bytes(found)

    @property
    def rest(self) -> bytes:
        """What came after the answer that ended HTTP."""
        return self._http.trailing_data[0]


class Engine:
    """A client of one Docker Engine."""

    def __init__(self, address: str | None = None) -> None:
        """Do nothing yet; the address is by default DOCKER_HOST, else the usual socket."""
        self.address = address or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
        self._prefix = ""

    async def open(self) -> None:
        """Agree on the interface's version; `BackendUnavailable` if no engine answers."""
        answer = await self.request("GET", "/version", timeout=10.0)
        version = answer.fields().get("ApiVersion") if answer.is_ok else None
        if not isinstance(version, str):
            raise BackendUnavailable(f"what answers at {self.address} is no Docker Engine")
        self._prefix = f"/v{version}"

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        timeout: float,
    ) -> Answer:
        """Ask, and return the whole answer, refusals included.

        Raises `BackendUnavailable` where no answer comes within `timeout` seconds.
        """
        with self._translated(f"{method} {path}"):
            with anyio.fail_after(timeout):
                async with self._connected() as exchange:
                    await self._ask(exchange, method, path, query, body)
                    head = await exchange.head()
                    return Answer(head.status_code, await exchange.body())

    async def follow(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        on_line: Callable[[Mapping[str, Any]], None],
        patience: float,
    ) -> Answer:
        """Ask for something that takes long, and take each JSON line of its progress as it comes.

        Returns the answer, without the lines.  Raises `BackendUnavailable` where nothing comes for
        `patience` seconds.
        """
        with self._translated(f"{method} {path}"):
            async with self._connected() as exchange:
                with anyio.fail_after(patience):
                    await self._ask(exchange, method, path, query, None)
                    head = await exchange.head()
                    if head.status_code >= _FIRST_REFUSAL:
                        return Answer(head.status_code, await exchange.body())
                rest = b""
                async with aclosing(exchange.pieces()) as pieces:
                    while True:
                        with anyio.fail_after(patience):
                            piece = await anext(pieces, b"")
                        *lines, rest = (rest + piece).split(b"\n")
                        if len(rest) > _MAX_LINE:
                            raise h11.RemoteProtocolError("a line of the answer is too long")
                        for line in filter(bytes.strip, lines):
                            on_line(Answer(head.status_code, line).fields())
                        if not piece:
                            return Answer(head.status_code, b"")

    async def download(
        self, path: str, take: Callable[[bytes], None], *, patience: float
    ) -> Answer:
        """Ask for something large, and take it piece by piece as it comes.

        Returns the answer, without the pieces, or the engine's refusal.  Raises
        `BackendUnavailable` where nothing comes for `patience` seconds.
        """
        with self._translated(f"GET {path}"):
            async with self._connected() as exchange:
                with anyio.fail_after(patience):
                    await self._ask(exchange, "GET", path, None, None)
                    head = await exchange.head()
                    if head.status_code >= _FIRST_REFUSAL:
                        return Answer(head.status_code, await exchange.body())
                async with aclosing(exchange.pieces()) as pieces:
                    while True:
                        with anyio.fail_after(patience):
                            piece = await anext(pieces, b"")
                        if not piece:
                            return Answer(head.status_code, b"")
                        take(piece)

    async def make_container(
        self, name: str, body: Mapping[str, Any], platform: str | None = None
    ) -> Answer:
        """Ask for a container; it has been made exactly if the answer says so.

        Cancel: a request that was given up half-way may still make the container, of which nobody
        would know; it is short and bounded, and the cancellation waits for its answer.
        """
        with anyio.CancelScope(shield=True):
            return await self.request(
                "POST",
                "/containers/create",
                query={"name": name} | ({"platform": platform} if platform else {}),
                body=body,
                timeout=_MAKE_TIMEOUT,
            )
        raise AssertionError("nobody cancels this scope")

    async def attach(self, container: str, *, timeout: float) -> tuple[socket.socket, bytes]:
        """Attach to the standard streams of a container that has not been started.

        Returns a non-blocking socket, and what has been read from it already.  What is sent goes to
        the container's input; what comes is in the frames that `demultiplexer` takes apart.
        """
        path = f"/containers/{container}/attach"
        query = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
        with self._translated(f"POST {path}"):
            with anyio.fail_after(timeout):
                async with self._connected() as exchange:
                    upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
                    await self._ask(exchange, "POST", path, query, None, upgrade)
                    head = await exchange.head()
                    if head.status_code != 101:
                        answer = Answer(head.status_code, await exchange.body())
                        raise BackendUnavailable(f"cannot attach to a container: {answer.message}")
                    # The exchange closes its own descriptor; the stream goes on with another.
                    return exchange.sock.dup(), exchange.rest

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[_Exchange]:
        scheme, _, path = self.address.partition("://")
        if scheme != "unix":
            raise BackendUnavailable(
                f"{self.address}: only engines on a Unix socket are supported (unix:///path)"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            yield _Exchange(sock)

    async def _ask(
        self,
        exchange: _Exchange,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        target = self._prefix + path + ("?" + urlencode(query) if query else "")
        data = b"" if body is None else json.dumps(body).encode()
        fields = [
            ("Host", "docker"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            *(headers or [("Connection", "close")]),
        ]
        await exchange.send(
            h11.Request(method=method, target=target, headers=fields),
            h11.Data(data=data),
            h11.EndOfMessage(),
        )

    def _translated(self, what: str) -> _Translation:
        return _Translation(self.address, what)


class _Translation:
    """Turns what may go wrong on a connection into one error that says what to do."""

    def __init__(self, address: str, what: str) -> None:
        self._address = address
        self._what = what

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate."""
        reason: str | None = None
        if isinstance(error, TimeoutError):
            reason = f"did not answer {self._what} in time"
        elif isinstance(error, OSError):
            reason = f"cannot be reached ({error.strerror or error})"
        elif isinstance(error, h11.ProtocolError):
            reason = f"broke off {self._what} ({error})"
        if reason is not None:
            raise BackendUnavailable(
                f"the Docker Engine at {self._address} {reason}; {_ALTERNATIVE}"
            ) from error
