"""Whether what runs in a sandbox is healthy: one look at it, as its pool's definition says.

Everything that is seen here was said by a tenant's program, and is taken for hostile: it is read up
to a bound, and nothing in it is followed.
"""

from __future__ import annotations

import anyio
import h11

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import DialFailed, Unhealthy
from sandpool.models import HealthCheck
from sandpool.service import ByteStream

_LARGEST_HEAD = 65_536
"""Bytes of an answer's status line and headers, which is all that is read of it."""

_LAST_WORDS = 200
"""Characters of a failed command's output that are worth telling."""

_CLOSE_BOUND = 5.0
"""Seconds that closing a connection may take."""


async def look(box: Box, health: HealthCheck) -> None:
    """Return if the sandbox is healthy; `Unhealthy`, or `SandboxDied`.

    How long it may take is for the caller to bound.
    """
    if health.kind == "exec":
        await _run(box, health)
    elif health.kind == "tcp":
        await _dial(box, _port(health))
    elif health.kind == "http":
        await _get(box, _port(health), health.path)


async def _run(box: Box, health: HealthCheck) -> None:
    result = await box.exec(RunOptions(argv=health.command, timeout=health.timeout))
    if not result.ok:
        said = (result.stderr or result.stdout).strip()[-_LAST_WORDS:]
        raise Unhealthy(
            f"the health check {health.command[0]!r} ended with {result.exit_code}: {said}"
        )


async def _dial(box: Box, port: int) -> None:
    stream = await _connection(box, port)
    await _close(stream)


async def _get(box: Box, port: int, path: str) -> None:
    headers = [("Host", f"127.0.0.1:{port}"), ("User-Agent", "sandpool"), ("Connection", "close")]
    # As h11 writes it, which has time to while it is on its way.
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii")
    stream = await _connection(box, port, request)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        connection.send(h11.Request(method="GET", target=path, headers=headers))
        connection.send(h11.EndOfMessage())
        status = await _status(connection, stream, port)
    except (h11.RemoteProtocolError, OSError) as error:
        raise Unhealthy(f"port {port} does not speak HTTP: {error}") from None
    finally:
        # Cancel: a server that does not answer is left, and its connection is closed.
        await _close(stream)
    if status >= 400:
        raise Unhealthy(f"GET {path} on port {port} was answered {status}")


async def _status(connection: h11.Connection, stream: ByteStream, port: int) -> int:
    """Return the status of the answer; its body is not waited for."""
    room = _LARGEST_HEAD
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is not h11.NEED_DATA:
            continue  # an interim answer: `room` bounds how many there are
        data = await stream.receive()
        room -= len(data)
        if room < 0:
            raise Unhealthy(f"port {port} answered with more than {_LARGEST_HEAD} bytes of headers")
        connection.receive_data(data)


async def _connection(box: Box, port: int, first: bytes = b"") -> ByteStream:
    try:
        return await box.dial(port, first)
    except DialFailed as error:
        raise Unhealthy(str(error)) from None


async def _close(stream: ByteStream) -> None:
    with anyio.move_on_after(_CLOSE_BOUND, shield=True):
        await stream.aclose()


def _port(health: HealthCheck) -> int:
    if health.port is None:
        raise Unhealthy(f"the health check of kind {health.kind} names no port")
    return health.port
