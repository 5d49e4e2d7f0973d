"""One WebSocket, opened to a server in a sandbox and relayed message by message.

Both sides have a connection of their own, each checked by its own parser: no byte is copied that
frames a message.  Nothing is compressed towards the sandbox.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from sandpool.errors import BadGateway, GatewayTimeout, SandpoolError
from sandpool.proxy.headers import Headers, request_headers, response_headers
from sandpool.server.relay import Errand
from sandpool.service import ByteStream

LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes."""
_LARGEST_REFUSAL = 64 * 1024
"""Bytes of the body of an answer that is no WebSocket."""

_HANDSHAKE = frozenset({
    b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions",
    b"sec-websocket-protocol", b"sec-websocket-accept",
})  # fmt: skip
"""What each side's parser says for itself."""

_SILENT = frozenset({CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE})
"""Codes that stand for the lack of one, and are never sent."""


async def relay_websocket(errand: Errand, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket; raises `SandpoolError` as long as the client has had no answer."""
    relay = _Relay(errand, scope, receive, send)
    try:
        with errand.entry.gate.visit():
            await relay.run()
    except SandpoolError as error:
        if not relay.is_open:
            raise
        with suppress(RuntimeError):  # the client has closed it meanwhile
            await send({"type": "websocket.close", "code": 1001, "reason": error.code})


class _Relay:
    """One WebSocket on its way; the deadline is put off by every message."""

    def __init__(self, errand: Errand, scope: Scope, receive: Receive, send: Send) -> None:
        self._errand = errand
        self._scope = scope
        self._receive = receive
        self._send = send
        self._span = errand.timeout
        self._patience = anyio.CancelScope()
        self._pieces: list[bytes] = []
        self._kind = Opcode.TEXT
        self._early: list[Event] = []
        self.is_open = False
        """Whether the client has been told that it is."""

    async def run(self) -> None:
        await self._receive()  # websocket.connect
        self._bump()
        with self._patience:
            async with self._dialled() as stream:
                protocol = await self._open(stream)
                if protocol is not None:
                    await self._relay(protocol, stream)
        if self._patience.cancelled_caught:
            raise GatewayTimeout(f"nothing came from port {self._errand.port} for {self._span:g} s")

    def _bump(self) -> None:
        self._patience.deadline = anyio.current_time() + self._span

    @asynccontextmanager
    async def _dialled(self) -> AsyncGenerator[ByteStream]:
        stream = await self._errand.entry.gate.dial(self._errand.port)
        try:
            yield stream
        finally:
            # Cancel: bounded by the stream.
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def _open(self, stream: ByteStream) -> ClientProtocol | None:
        """Open it on both sides; None if the sandbox's server refused, which the client is told."""
        protocol = ClientProtocol(
            _uri(self._errand.target),
            subprotocols=[Subprotocol(name) for name in self._scope["subprotocols"]] or None,
            max_size=LARGEST_MESSAGE,
        )
        request = protocol.connect()
        del request.headers["Host"]
        for name, value in request_headers(self._scope["headers"], self._errand.place):
            if name not in _HANDSHAKE:
                request.headers[_text(name)] = _text(value)
        protocol.send_request(request)
        await _flush(protocol, stream)
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            await _feed(protocol, stream)
        failure = protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            await self._refuse(failure.response)
            return None
        if failure is not None:
            raise BadGateway(f"the sandbox's server opened no WebSocket: {failure}")
        await self._accept(protocol)
        return protocol

    async def _accept(self, protocol: ClientProtocol) -> None:
        self._span = self._errand.idle_timeout
        self._bump()
        # What came together with the answer is for `_outwards`.
        first, *self._early = protocol.events_received()
        assert isinstance(first, Response)
        self.is_open = True
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": protocol.subprotocol,
                "headers": self._passed_back(first),
            }
        )

    async def _refuse(self, response: Response) -> None:
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            raise BadGateway(f"the sandbox's server answered {response.status_code}")
        headers = [
            header for header in self._passed_back(response) if header[0] != b"content-length"
        ]
        self.is_open = True
        await self._send(
            {
                "type": "websocket.http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )
        await self._send(
            {
                "type": "websocket.http.response.body",
                "body": bytes(response.body or b"")[:_LARGEST_REFUSAL],
            }
        )

    def _passed_back(self, response: Response) -> Headers:
        sent = [
            (_bytes(name.lower()), _bytes(value)) for name, value in response.headers.raw_items()
        ]
        passed = response_headers(sent, self._errand.place)
        return [header for header in passed if header[0] not in _HANDSHAKE]

    async def _relay(self, protocol: ClientProtocol, stream: ByteStream) -> None:
        failure: SandpoolError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._inwards, protocol, stream, group.cancel_scope)
            try:
                await self._outwards(protocol, stream)
            except SandpoolError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _inwards(
        self, protocol: ClientProtocol, stream: ByteStream, scope: anyio.CancelScope
    ) -> None:
        """Pass on what the client sends; when it has left, so does the sandbox's connection."""
        while True:
            message = await self._receive()
            self._bump()
            if message["type"] == "websocket.disconnect":
                code, reason = message.get("code"), message.get("reason") or ""
                if protocol.state is State.OPEN:
                    if code in _SILENT or code is None:
                        protocol.send_close()
                    else:
                        protocol.send_close(code, reason)
                    await _try_flush(protocol, stream)
                scope.cancel()
                return
            if protocol.state is not State.OPEN:
                continue
            if (text := message.get("text")) is not None:
                protocol.send_text(text.encode())
            else:
                protocol.send_binary(message.get("bytes") or b"")
            await _try_flush(protocol, stream)

    async def _outwards(self, protocol: ClientProtocol, stream: ByteStream) -> None:
        """Pass on what the sandbox sends, and in the end how it ended."""
        events = self._early
        while True:
            for event in events:
                if isinstance(event, Frame):
                    await self._pass_back(event, protocol)
            if protocol.state is not State.OPEN:
                break
            await _feed(protocol, stream)
            self._bump()
            await _try_flush(protocol, stream)
            events = protocol.events_received()
        await _try_flush(protocol, stream)
        # Closed by us, for something that is no WebSocket, or by the sandbox's server.
        end = protocol.close_rcvd or protocol.close_sent
        if end is None:
            end = Close(CloseCode.INTERNAL_ERROR, "the sandbox's server closed the connection")
        code = CloseCode.NORMAL_CLOSURE if end.code in _SILENT else end.code
        await self._send({"type": "websocket.close", "code": int(code), "reason": end.reason})

    async def _pass_back(self, frame: Frame, protocol: ClientProtocol) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._kind = frame.opcode
        elif frame.opcode is not Opcode.CONT:
            return
        self._pieces.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._pieces = b"".join(self._pieces), []
        message: dict[str, Any] = {"type": "websocket.send"}
        if self._kind is Opcode.TEXT:
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                protocol.fail(CloseCode.INVALID_DATA, "a text that is not UTF-8")
                return
        else:
            message["bytes"] = data
        await self._send(message)


def _uri(target: bytes) -> WebSocketURI:
    path, _, query = _text(target).partition("?")
    # The host is that of the request's own header.
    return WebSocketURI(secure=False, host="sandbox", port=80, path=path, query=query)


def _text(data: bytes) -> str:
    """Return bytes of a head as the parser keeps them."""
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


async def _flush(protocol: ClientProtocol, stream: ByteStream) -> None:
    for data in protocol.data_to_send():
        if data:
            await stream.send(data)
        else:
            await stream.send_eof()


async def _try_flush(protocol: ClientProtocol, stream: ByteStream) -> None:
    # What it sent before it closed or died is still to be read, and then the reason.
    with suppress(OSError, SandpoolError):
        await _flush(protocol, stream)


async def _feed(protocol: ClientProtocol, stream: ByteStream) -> None:
    try:
        data = await stream.receive()
    except OSError:
        data = b""
    if data:
        protocol.receive_data(data)
    else:
        protocol.receive_eof()
