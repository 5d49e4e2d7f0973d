"""`Transport`: calls to one server, over connections that are kept.

It knows the server's URL, the caller's key, and how an answer becomes an exception; what is called
is for its users to say.  A call is made again only where that cannot do anything twice (`retry`),
and only while its caller waits.

The environment is not looked at: neither a proxy nor a `.netrc` of this machine gets to see a key
that is meant for one server.  Redirections are not followed, for the same reason.

    T1  At most one `aiohttp.ClientSession` is open, and it belongs to the running event loop.
"""

from __future__ import annotations

import json as jsonlib
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import anyio
from anyio.abc import TaskStatus
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from sandpool.client import retry
from sandpool.client.calls import (
    CONNECT_TIMEOUT,
    LOST,
    Answer,
    Call,
    Content,
    Params,
    has_reached,
    open_session,
    read,
    send,
    url,
)
from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import (
    AcquireTimeout,
    InvalidSpec,
    LeaseNotFound,
    LeaseOver,
    ManagerNotStarted,
    RemoteError,
    SandpoolError,
    ServerUnreachable,
)
from sandpool.ids import new_token
from sandpool.manager.runtime import Runtime
from sandpool.wire import headers as names
from sandpool.wire import problems

_log = logging.getLogger(__name__)

_SLACK = 5.0
"""Seconds after the caller's deadline in which the server's own answer may still come."""
_CLOSE_BOUND = 5.0
"""Seconds that closing connections may take."""
_UNDO_BOUND = 5.0
"""Seconds that taking back what a lost call made may take."""
_LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message."""


class Transport:
    """Calls to one server.

    It may be started on one event loop, used on a second and closed on a third: connections end
    with the loop that they were made on, and are made anew on the next.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        slack: float = _SLACK,
        clock: Clock | None = None,
    ) -> None:
        """Describe it; nothing is connected before the first call.

        Args:
            base_url: Where the server is, `http://host:port`, with a path if it is below one.
            api_key: Who is calling.
            ssl_context: What an `https` server is checked against; by default the system's
                authorities.
            slack: Seconds after a call's deadline in which the server's own answer may still come.
            clock: What time is, between attempts.

        Raises:
            InvalidSpec: `base_url` is not one, or the key cannot be sent.
        """
        self.base_url = check_base_url(base_url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidSpec("api_key has characters that no header can have")
        self._api_key = api_key
        self._ssl_context = ssl_context
        self._slack = slack
        self._clock = clock if clock is not None else MonotonicClock()
        self._runtime = Runtime()
        self._session: aiohttp.ClientSession | None = None
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Transport {self.base_url}>"

    async def start(self) -> None:
        """Take calls; no effect on one that does."""
        self._is_open = True

    async def aclose(self) -> None:
        """Close its connections and take no more calls; no effect on a closed one."""
        self._is_open = False
        with anyio.move_on_after(_CLOSE_BOUND, shield=True):
            await self._runtime.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: Content | None = None,
        params: Params | None = None,
        lease_id: str | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Make a call and return its answer, read to its end.

        Nothing is left of a cancelled call: its connection is closed, and the server takes back
        what it was doing.  A DELETE that had to be repeated, and then finds nothing, has been
        served before: its 404 is returned.

        Args:
            method: The HTTP method.
            path: The path below the server's URL, its parts quoted (`segment`).
            json: The body, as JSON.
            content: The body, as bytes; an iterator is sent once, and such a call never repeated.
            params: The query; what is None is left out.
            lease_id: The lease through which a sandbox is called.
            timeout: Seconds that the server was told to take at most; None: without limit.
            idempotency_key: Makes a POST repeatable; new for each call.

        Raises:
            SandpoolError: What the server answered, as the class of its code.
            RemoteError: The server answered what no server of this kind does.
            ServerUnreachable: There was no answer.
            AcquireTimeout: There was none in `timeout` seconds, and some slack.
            ManagerNotStarted: The transport is not open.
        """
        call = Call(method, path, json, content, params, self._headers(lease_id, idempotency_key))
        return _checked(call, *await self._repeat_within(timeout, call))

    async def obtain(
        self,
        path: str,
        *,
        json: object,
        timeout: float | None = None,
        take_back: Callable[[Answer], Awaitable[object]],
    ) -> Answer:
        """Make a POST that gives its caller something to keep, and return its answer.

        A server takes back by itself what nobody hears of, but it cannot know about an answer that
        was lost on the way, or that came as the caller gave up.  So a call that ends without one,
        by cancellation too, is given up by its key: in progress it is cancelled, and if there was
        an answer, `take_back` is called with it.  That is shielded, bounded, and tried once.

        Args and errors are those of `call`; the call has an idempotency key of its own.
        """
        call = Call("POST", path, json, None, None, self._headers(None, new_token()))
        try:
            response, attempt = await self._repeat_within(timeout, call)
        except BaseException:
            # Cancel: the connection is closed, and the server perhaps not done with the call.
            with anyio.move_on_after(_UNDO_BOUND, shield=True):
                await self._take_back(call, take_back)
            raise
        return _checked(call, response, attempt)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: Content | None = None,
        params: Params | None = None,
        lease_id: str | None = None,
        accept: str | None = None,
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Make a call once and give its answer for the length of a block, to be iterated over.

        Leaving the block before the end of the answer closes the connection, which ends what the
        server does for it.  Raises what `call` does, also from the iteration inside the block.
        """
        session = await self._need_session()
        headers = self._headers(lease_id, None)
        if accept is not None:
            headers["Accept"] = accept
        call = Call(method, path, json, content, params, headers)
        try:
            async with send(session, self.base_url, call) as response:
                if response.status >= 300:
                    raise _for_caller(call, _error(await read(call, response)))
                yield response.content.iter_any()
        except LOST as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def websocket(
        self, path: str, *, params: Params | None = None, lease_id: str | None = None
    ) -> AsyncGenerator[ClientConnection]:
        """Open a WebSocket for the length of a block.

        Raises what `call` does where the server refuses it; once it is open, what goes wrong with
        it is raised as `websockets.exceptions.ConnectionClosed`.
        """
        if not self._is_open:
            raise _not_started()
        address = url(self.base_url, path, params).replace("http", "ws", 1)
        try:
            connection = await _Connect(
                address,
                additional_headers=self._headers(lease_id, None),
                ssl=self._tls() if address.startswith("wss:") else None,
                proxy=None,
                max_size=_LARGEST_MESSAGE,
                open_timeout=CONNECT_TIMEOUT,
            )
        except InvalidStatus as refusal:
            body = bytes(refusal.response.body)
            error = problems.decode(refusal.response.status_code, _parsed(body))
            raise (_over(error) if lease_id is not None else error) from None
        except (InvalidHandshake, OSError) as error:
            raise self._unreachable(error) from error
        try:
            yield connection
        finally:
            with anyio.move_on_after(_CLOSE_BOUND, shield=True):
                await connection.close()

    async def _take_back(
        self, call: Call, take_back: Callable[[Answer], Awaitable[object]]
    ) -> None:
        giving_up = replace(call, headers={**call.headers, names.ABANDON: "true"})
        try:
            response = await self._attempt(giving_up)
            if response.status < 300:
                await take_back(response)
        except (SandpoolError, *LOST) as error:
            _log.warning("%s: what a lost call made may be left: %r", call.path, error)

    async def _repeat_within(self, timeout: float | None, call: Call) -> tuple[Answer, int]:
        """Return the last answer, good or bad, and how many attempts failed before it."""
        if timeout is None:
            return await self._repeat(call)
        with anyio.move_on_after(timeout + self._slack):
            return await self._repeat(call)
        raise AcquireTimeout(f"{self.base_url} did not answer within {timeout:g}s")

    async def _repeat(self, call: Call) -> tuple[Answer, int]:
        attempt = 0
        while True:
            wait = retry.delay(attempt)
            try:
                response = await self._attempt(call)
            except LOST as error:
                if wait is None or not _can_repeat(call, error):
                    raise self._unreachable(error) from error
            else:
                passing = retry.is_passing(response.status, is_problem=_is_problem(response))
                if wait is None or not (passing and call.is_repeatable):
                    return response, attempt
            await self._clock.sleep(wait)
            attempt += 1

    async def _attempt(self, call: Call) -> Answer:
        session = await self._need_session()
        async with send(session, self.base_url, call) as response:
            return await read(call, response)

    async def _need_session(self) -> aiohttp.ClientSession:
        if not self._is_open:
            raise _not_started()
        await self._runtime.add("connections", self._keep_connections)
        session = self._session
        if session is None:
            raise _not_started()
        return session

    async def _keep_connections(self, *, task_status: TaskStatus[None]) -> None:
        """Keep a session open for as long as this event loop wants it.  Invariant T1."""
        session = open_session(self._tls())
        try:
            self._session = session
            task_status.started()
            await anyio.sleep_forever()
        finally:
            self._session = None
            with anyio.move_on_after(_CLOSE_BOUND, shield=True):
                await session.close()

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is not None:
            return self._ssl_context
        if self.base_url.startswith("https:"):
            return ssl.create_default_context()
        # Never used, and without the authorities, whose reading takes longer than a call.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def _headers(self, lease_id: str | None, idempotency_key: str | None) -> dict[str, str]:
        given = {
            names.API_KEY: self._api_key,
            names.LEASE: lease_id,
            names.IDEMPOTENCY_KEY: idempotency_key,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        reason = str(error) or type(error).__name__
        return ServerUnreachable(f"{self.base_url} does not answer: {reason}")


class _Connect(connect):
    """A WebSocket's opening that follows no redirection: the key is meant for one server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def check_base_url(base_url: str) -> str:
    """Return a server's URL without the slash at its end; `InvalidSpec` if it is not one."""
    try:
        parts = urlsplit(base_url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
        parts = urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise InvalidSpec("base_url: a key is given as `api_key`, not in the URL")
    if not is_good or parts.query or parts.fragment:
        raise InvalidSpec(f"base_url must be like http://127.0.0.1:8400, not {base_url!r}")
    return base_url.rstrip("/")


def segment(text: str) -> str:
    """Return text as one part of a path, whatever is in it."""
    quoted = quote(text, safe="")
    # Parts of dots alone would be taken out on the way.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def parse_json(answer: Answer) -> Any:
    """Return an answer's JSON; `RemoteError` if it has none."""
    try:
        return jsonlib.loads(answer.content)
    except ValueError:
        raise RemoteError(
            f"{answer.path}: the answer is not JSON; is this a sandpool server?"
        ) from None


def _can_repeat(call: Call, error: Exception) -> bool:
    # What never reached the server was not served, whatever it is.
    return call.is_repeatable if has_reached(error) else call.can_be_sent_again


def _checked(call: Call, response: Answer, attempt: int) -> Answer:
    if response.status < 300:
        return response
    error = _error(response)
    is_from_server = not isinstance(error, RemoteError)
    if response.status == 404 and call.method == "DELETE" and attempt > 0 and is_from_server:
        return response
    raise _for_caller(call, error)


def _for_caller(call: Call, error: SandpoolError) -> SandpoolError:
    return _over(error) if names.LEASE in call.headers else error


def _over(error: SandpoolError) -> SandpoolError:
    """Return what a call through a lease raises: one that the server does not know has ended."""
    return LeaseOver(str(error)) if isinstance(error, LeaseNotFound) else error


def _error(response: Answer) -> SandpoolError:
    return problems.decode(response.status, _parsed(response.content))


def _is_problem(answer: Answer) -> bool:
    return answer.media_type == problems.MEDIA_TYPE


def _parsed(body: bytes) -> Any:
    try:
        return jsonlib.loads(body)
    except ValueError:
        return None


def _not_started() -> ManagerNotStarted:
    return ManagerNotStarted("Manager not started")
