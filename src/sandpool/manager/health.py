"""Whether what runs in a sandbox is healthy: one look at it, as its pool's definition says.

Everything that is seen here was said by a tenant's program, and is taken for hostile: it is read up
to a bound, and nothing in it is followed.
"""

from __future__ import annotations

import anyio
import httptools

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
    head = f"Host: 127.0.0.1:{port}\r\nUser-Agent: sandpool\r\nConnection: close\r\n"
    stream = await _connection(box, port, f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii"))
    try:
        status = await _status(stream)
    except (ValueError, OSError) as error:
        raise Unhealthy(f"port {port} does not speak HTTP: {error}") from None
    finally:
        # Cancel: a server that does not answer is left, and its connection is closed.
        await _close(stream)
    if status >= 400:
        raise Unhealthy(f"GET {path} on port {port} was answered {status}")


class _Answer:
    """What a parser tells of an answer."""

    def __init__(self) -> None:
        self.status = 0
        """0 before it is known: an interim one says nothing."""
        self._parser = httptools.HttpResponseParser(self)
        # Lines without a carriage return, and headers of several lines, are no sign of bad health.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True
        )

    def feed(self, data: bytes) -> None:
        """Take bytes of it; `ValueError` if they are no head, and no body matters."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.status:
                raise ValueError(f"its answer is malformed: {error}") from error

    def on_headers_complete(self) -> None:
        """Hear from the parser that there are all headers; what follows is not looked at."""
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = self.status or status


async def _status(stream: ByteStream) -> int:
    """Return the status of the answer, whose body is not waited for; `ValueError` without one."""
    answer = _Answer()
    room = _LARGEST_HEAD
    while not answer.status:
        data = await stream.receive()
        if not data:
            raise ValueError("it closed the connection without an answer")
        room -= len(data)
        if room < 0:
            raise ValueError(f"it answered with more than {_LARGEST_HEAD} bytes of headers")
        answer.feed(data)
    return answer.status


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
