"""`Door`: a loopback port of this machine that leads to a port of a sandbox.

Bytes are passed on as they are, so it serves whatever speaks over TCP.  Only where there is nothing
to pass on does it speak itself, and then HTTP, which most of those who knock will understand.

Everybody on this machine can knock at a loopback port, and so can the pages in their browsers.  A
door that is private speaks HTTP only, and lets in one request for each connection: it looks at its
head for the token, takes the token out, and has the server inside close after its answer.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import re
import socket
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator

import anyio
from anyio.abc import TaskStatus

from sandpool.errors import ForbiddenOrigin, SandpoolError, Unauthorized
from sandpool.proxy.gate import Gate
from sandpool.proxy.headers import TOKEN
from sandpool.service import ByteStream
from sandpool.wire import problems

_log = logging.getLogger(__name__)

_USER = "sandpool"
_END = b"\r\n\r\n"
_LASTING = frozenset({b"connection", b"keep-alive"})
_BACKLOG = 128
_PIECE = 64 * 1024
_LARGEST_HEAD = 64 * 1024
_HEAD_BOUND = 10.0
"""Seconds that the head of a private connection's first request may take."""
_LINGER = 1.0
"""Seconds in which a caller that was turned away may finish what it is saying."""
_CLOSE_BOUND = 5.0

_TRIES = 64
_RETIRED = 4_096
"""Ports that are not taken again for now: their last ones."""


_retired: OrderedDict[int, None] = OrderedDict()
"""Ports that doors of this program have had.

Somebody may still have the address of one; it must not lead to another tenant.
"""


class Door:
    """One port; `run` keeps it open."""

    def __init__(self, gate: Gate, port: int, *, is_private: bool = False) -> None:
        """Lead to `port` of the sandbox behind `gate`; `listen` takes a port of this machine."""
        self._gate = gate
        self._port = port
        self._is_private = is_private
        self._listener: socket.socket | None = None
        self._at = ""

    @property
    def url(self) -> str:
        """Where it is; with the token, as its user's password, if it is private."""
        if not self._is_private:
            return f"http://{self._at}/"
        return f"http://{_USER}:{self._gate.token(self._port)}@{self._at}/"

    def listen(self) -> socket.socket:
        """Take a free loopback port; callers wait at it until `run` lets them in."""
        listener = _unused_port()
        listener.setblocking(False)
        # Accepted sockets inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        host, number = listener.getsockname()
        self._at = f"{host}:{number}"
        return listener

    def close(self) -> None:
        """Give the port back; connections are the gate's to cut."""
        if self._listener is not None:
            self._listener.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Let callers in until cancelled."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as group:
            task_status.started()
            while True:
                try:
                    caller, _ = await loop.sock_accept(self._listener)
                except OSError as error:
                    if self._listener.fileno() < 0:
                        break
                    # Too many open files: they go as connections do.
                    _log.warning("a connection could not be accepted: %s", error)
                    await anyio.sleep(_LINGER)
                    continue
                group.start_soon(self._serve, caller)

    async def _serve(self, caller: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=caller)
        is_connected = False
        try:
            with self._gate.visit():
                head = await self._admit(reader) if self._is_private else b""
                stream = await self._gate.dial(self._port)
                is_connected = True
                answer = _last_answer(stream) if self._is_private else _pieces(stream)
                await _relay(stream, answer, reader, writer, head)
        except SandpoolError as error:
            if not is_connected:
                await _turn_away(error, reader, writer)
            else:
                _reset(writer)
        except OSError:
            _reset(writer)
        finally:
            await _close(writer)

    async def _admit(self, reader: asyncio.StreamReader) -> bytes:
        """Return what a private door passes on of what it has read; raises why it does not."""
        head = b""
        with anyio.move_on_after(_HEAD_BOUND):
            while _END not in head and len(head) <= _LARGEST_HEAD:
                piece = await reader.read(_PIECE)
                if not piece:
                    break
                head += piece
        head, end, rest = head.partition(_END)
        if not end:
            raise Unauthorized("this port is opened by a request with its token")
        return admitted(head, self._gate.token(self._port)) + end + rest


def _unused_port() -> socket.socket:
    """Return a listener at a port that no door has had lately, if the kernel has one to give."""
    passed: list[socket.socket] = []
    try:
        for _ in range(_TRIES):
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            number: int = listener.getsockname()[1]
            if number not in _retired:
                break
            # Kept open until another one is found: the kernel would give it again.
            passed.append(listener)
        else:
            listener = passed.pop()
    finally:
        for each in passed:
            each.close()
    number = listener.getsockname()[1]
    _retired[number] = None
    _retired.move_to_end(number)
    if len(_retired) > _RETIRED:
        _retired.popitem(last=False)
    return listener


def admitted(head: bytes, token: str) -> bytes:
    """Return the head of a request that has the token, as it is passed on.

    Raises `Unauthorized`, and `ForbiddenOrigin` for one that a page of elsewhere has had its
    visitor's browser send.
    """
    basic = b"Basic " + base64.b64encode(f"{_USER}:{token}".encode())
    wanted = {b"authorization": basic, TOKEN: token.encode()}
    first, *lines = head.split(b"\r\n")
    kept = [first]
    said: dict[bytes, bytes] = {}
    has_token = False
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        right = wanted.get(name)
        if right is not None and hmac.compare_digest(value, right):
            has_token = True
        elif name != b"connection" or b"upgrade" in value.lower():
            kept.append(line)
            said[name] = value
    if not has_token:
        raise Unauthorized("this port is opened by its token, which its URL carries")
    site, mode = said.get(b"sec-fetch-site"), said.get(b"sec-fetch-mode")
    if site in (b"cross-site", b"same-site") and mode != b"navigate":
        raise ForbiddenOrigin("pages of other origins may not call a private port")
    if b"connection" not in said:
        # The next request on this connection might be somebody else's, and would not be looked at.
        kept.append(b"Connection: close")
    return b"\r\n".join(kept)


async def _pieces(stream: ByteStream) -> AsyncIterator[bytes]:
    while piece := await stream.receive():
        yield piece


async def _last_answer(stream: ByteStream) -> AsyncIterator[bytes]:
    """Iterate over the answer to the one request of a connection, which says that it is the last.

    A caller that is not told might send another before it sees that the connection has closed.
    """
    ahead = b""
    is_head = True
    async for piece in _pieces(stream):
        ahead += piece
        while is_head and _END in ahead:
            head, end, ahead = ahead.partition(_END)
            yield closing(head) + end
            is_head = is_interim(head)
        if not is_head or len(ahead) > _LARGEST_HEAD:
            is_head = False
            yield ahead
            ahead = b""
    yield ahead


def is_interim(head: bytes) -> bool:
    """Whether another head follows this one, which is that of an answer."""
    return re.match(rb"HTTP/1\.1 1(?!01)\d\d ", head) is not None


def closing(head: bytes) -> bytes:
    """Return the head of an answer, saying that the connection closes after it."""
    first, *lines = head.split(b"\r\n")
    if re.match(rb"HTTP/1\.1 [2-5]\d\d ", first) is None:
        return head
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _LASTING]
    return b"\r\n".join([first, *kept, b"Connection: close"])


async def _relay(
    stream: ByteStream,
    answer: AsyncIterator[bytes],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    head: bytes,
) -> None:
    """Pass bytes on in both directions, until both have ended or one has failed."""

    async def inwards(scope: anyio.CancelScope) -> None:
        try:
            await stream.send(head)
            while piece := await reader.read(_PIECE):
                await stream.send(piece)
            await stream.send_eof()
        except (OSError, SandpoolError):
            # A sandbox that takes no more may still have something to say; a caller that has gone
            # hears nothing.
            if reader.exception() is not None:
                scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(inwards, group.cancel_scope)
            async for piece in answer:
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        # Cancel: bounded by the stream.
        with anyio.CancelScope(shield=True):
            await stream.aclose()


async def _turn_away(
    error: SandpoolError, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say what is wrong, and take leave so that the caller can hear it."""
    body = json.dumps(problems.encode(error)).encode()
    status = problems.status_of(error)
    lines = [
        f"HTTP/1.1 {status} {error.code}",
        f"Content-Type: {problems.MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status == 401:
        lines.append('WWW-Authenticate: Basic realm="sandpool"')
    with anyio.move_on_after(_LINGER):
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        writer.write_eof()
        # Closed with something unread, it would be reset, and the answer lost.
        while await reader.read(_PIECE):
            pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, so that what was cut does not look like an end."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    with anyio.move_on_after(_CLOSE_BOUND, shield=True):
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            return
