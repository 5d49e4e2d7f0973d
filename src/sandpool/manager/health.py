"""Whether what runs in a sandbox is healthy: one look at it, as its pool's definition says.

Everything that is seen here was said by a tenant's program, and is taken for hostile: it is read up
to a bound, and nothing in it is followed.
"""

from __future__ import annotations

import httptools

from sandpool.backends.base import LONGEST_HEAD, Box, RunOptions
from sandpool.errors import DialFailed, Unhealthy
from sandpool.models import HealthCheck

_LAST_WORDS = 200
"""Characters of a failed command's output that are worth telling."""


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
    try:
        stream = await box.dial(port)
    except DialFailed as error:
        raise Unhealthy(str(error)) from None
    await stream.aclose()


async def _get(box: Box, port: int, path: str) -> None:
    head = f"Host: 127.0.0.1:{port}\r\nUser-Agent: sandpool\r\nConnection: close\r\n"
    try:
        status = status_of(await box.probe(port, f"GET {path} HTTP/1.1\r\n{head}\r\n"))
    except DialFailed as error:
        raise Unhealthy(str(error)) from None
    except ValueError as error:
        raise Unhealthy(f"port {port} does not speak HTTP: {error}") from None
    if status >= 400:
        raise Unhealthy(f"GET {path} on port {port} was answered {status}")


class _Answer:
    """What a parser tells of an answer."""

    def __init__(self) -> None:
        self.status = 0
        """0 before it is known: an interim one says nothing."""
        self.parser = httptools.HttpResponseParser(self)
        # Lines without a carriage return, and headers of several lines, are no sign of bad health.
        self.parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True
        )

    def on_headers_complete(self) -> None:
        """Hear from the parser that there are all headers; what follows is not looked at."""
        status = self.parser.get_status_code()
        if status >= 200:
            self.status = self.status or status


def status_of(head: bytes) -> int:
    """Return the status of an answer, by its head; `ValueError` if it has none."""
    answer = _Answer()
    try:
        answer.parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        if not answer.status:
            raise ValueError(f"its answer is malformed: {error}") from error
    if not answer.status:
        if len(head) >= LONGEST_HEAD:
            raise ValueError(f"its answer's headers are longer than {LONGEST_HEAD} bytes")
        raise ValueError("it closed the connection without an answer")
    return answer.status


def _port(health: HealthCheck) -> int:
    if health.port is None:
        raise Unhealthy(f"the health check of kind {health.kind} names no port")
    return health.port
