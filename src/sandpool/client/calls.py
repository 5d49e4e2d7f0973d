"""Calls as aiohttp makes them: one is written, sent once, and its answer read.

What is sent again, and what an answer means to a caller, is for `transport`.
"""

from __future__ import annotations

import io
import json as jsonlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from sandpool.client import retry
from sandpool.errors import InvalidSpec
from sandpool.wire import headers as names

Params = Mapping[str, str | int | float | bool | None]
Content = bytes | AsyncIterator[bytes]

LOST = aiohttp.ClientError, TimeoutError
"""What is raised where a call has no answer."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to be made."""
_WRITE_TIMEOUT = 60.0
"""Seconds for the server's host to take the next piece of a request."""
_KEPT_FOR = 60.0
"""Seconds that an idle one is kept: less than the server keeps it, which must not be first."""
_LONG = 256 * 1024
"""Bytes of a body that is not handed over at once."""

# An answer may be hours away, so no bound on reading tells that the server's host is gone.
_SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in {
            "TCP_KEEPIDLE": 30,
            "TCP_KEEPINTVL": 10,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": int(_WRITE_TIMEOUT * 1000),
        }.items()
        if hasattr(socket, name)
    ),
]

_NO_GUESSES = ("Content-Type", "User-Agent")
"""Headers that are sent only where we have something to say."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, to be made as often as it takes."""

    method: str
    path: str
    json: object
    content: Content | None = field(repr=False)
    params: Params | None
    headers: Mapping[str, str] = field(repr=False)

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be made again although it may have been served."""
        return self.can_be_sent_again and retry.is_repeatable(
            self.method, has_key=names.IDEMPOTENCY_KEY in self.headers
        )

    @property
    def can_be_sent_again(self) -> bool:
        """Whether all of it is still in hand."""
        return self.content is None or isinstance(self.content, bytes)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered, read to its end."""

    status: int
    content: bytes = field(repr=False)
    media_type: str
    path: str
    """What was called."""


class _ConnectionLost(aiohttp.ClientConnectionError):
    """A connection that had been made ended before there was an answer."""


def open_session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return a session for the running event loop; the caller closes it."""
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEPT_FOR,
        ssl=tls,
        socket_factory=_open_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        middlewares=(_once,),
        trust_env=False,
    )


@asynccontextmanager
async def send(
    session: aiohttp.ClientSession, base_url: str, call: Call
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """Send a call; give the head of the answer, whose connection is closed unless all was read.

    Raises one of `LOST`, `InvalidSpec` for what JSON cannot say, and what an iterator raises.
    """
    body, headers = call.content, call.headers
    if call.json is not None:
        body, headers = _as_json(call.json), {**headers, "Content-Type": "application/json"}
    failures: list[Exception] = []
    try:
        response = await session.request(
            call.method,
            # As it is: what is quoted in it is meant to be.
            URL(url(base_url, call.path, call.params), encoded=True),
            data=_payload(body, failures),
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=_NO_GUESSES,
        )
    except aiohttp.ClientError:
        if failures:
            raise failures[0] from None
        raise
    try:
        yield response
    finally:
        response.close()


def _as_json(value: object) -> bytes:
    try:
        text = jsonlib.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"the call cannot be written as JSON: {error}") from None


def _payload(
    content: Content | None, failures: list[Exception]
) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
    """Return what is sent; what goes wrong with an iterator is added to `failures`."""
    if content is None:
        return None
    if isinstance(content, bytes):
        # What is long is sent in pieces, between which the loop has time for others.
        return content if len(content) < _LONG else io.BytesIO(content)
    return _noting(content, failures)


async def _noting(
    content: AsyncIterator[bytes], failures: list[Exception]
) -> AsyncGenerator[bytes]:
    try:
        async for piece in content:
            yield piece
    except Exception as error:
        failures.append(error)
        raise


def url(base_url: str, path: str, params: Params | None) -> str:
    """Return what is called; of `params`, what is None is left out."""
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in (params or {}).items()
        if value is not None
    }
    return base_url + path + ("?" + urlencode(given) if given else "")


async def read(call: Call, response: aiohttp.ClientResponse) -> Answer:
    """Read an answer to its end; raises one of `LOST`."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return Answer(response.status, await response.read(), kind, call.path)


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    try:
        for option in _SOCKET_OPTIONS:
            opened.setsockopt(*option)
    except OSError:
        opened.close()
        raise
    return opened


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request once; `retry` says what is sent again, and knows how often it was."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost(str(error) or type(error).__name__) from error


def has_reached(error: Exception) -> bool:
    """Whether a call that was lost like this may have been served."""
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
