"""Creating calls that may be sent twice: the second gets the first one's answer.

A client that lost an answer cannot tell whether its call was served.  With an `Idempotency-Key` it
can ask again; and one that gives up can say so, which ends the call behind proxies that do not pass
a client's departure on, and gets the answer that there was, to delete what it will not use.

Answers are remembered in memory, for a time and up to a number: a restart forgets them, and the
sandboxes that they speak of end with it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.clock import Clock
from sandpool.errors import IdempotencyConflict, InvalidSpec, SandpoolError
from sandpool.server.answers import send_problem
from sandpool.server.bodies import replaying
from sandpool.server.keys import Identity
from sandpool.wire import headers

_REMEMBERED = 10_000
_FOR = 24 * 3600.0
"""Seconds."""
_LARGEST = 1024 * 1024
"""Bytes of an answer that is remembered; creating calls give small ones."""
_LONGEST_KEY = 255
_KEY = headers.IDEMPOTENCY_KEY.lower().encode()
_ABANDON = headers.ABANDON.lower().encode()

_Key = tuple[str, str]
"""The namespace, and the key that its caller chose."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call and, once it has been given, its answer."""

    request: bytes
    """The hash of what was asked."""
    made_at: float
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_done: anyio.Event = field(default_factory=anyio.Event)
    answer: list[Message] = field(default_factory=list[Message])
    """Empty: not answered yet, or in a way that a second call may improve on."""


class Idempotency:
    """A layer that answers a repeated POST with what the first one got."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        """Remember the answers of `app`."""
        self._app = app
        self._clock = clock
        self._calls: OrderedDict[_Key, _Call] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or repeat an answer."""
        chosen = _chosen_key(scope)
        if chosen is None:
            await self._app(scope, receive, send)
            return
        try:
            if not 0 < len(chosen) <= _LONGEST_KEY:
                raise InvalidSpec(f"an Idempotency-Key has 1 to {_LONGEST_KEY} characters")
            await self._serve(chosen, scope, receive, send)
        except SandpoolError as error:
            await send_problem(scope, send, error)

    async def _serve(self, chosen: str, scope: Scope, receive: Receive, send: Send) -> None:
        identity: Identity = scope["state"]["identity"]
        key = (identity.namespace or "", chosen)
        body = await _read(receive)
        request = _hash(scope, body)
        is_given_up = _header(scope, _ABANDON) is not None
        while (call := self._known(key)) is not None:
            if call.request != request:
                raise IdempotencyConflict("this Idempotency-Key was used for another request")
            if is_given_up:
                call.scope.cancel()
            await call.is_done.wait()
            if call.answer:
                await _repeat(call.answer, send)
                return
        if is_given_up:
            raise IdempotencyConflict("no call with this Idempotency-Key has an answer")
        call = _Call(request, self._clock.now())
        self._calls[key] = call
        recorder = _Recorder(send)
        try:
            # Cancelled by `scope`, it ends without an answer, and what it made is taken back.
            with call.scope:
                await self._app(scope, replaying(body, receive), recorder.send)
                if recorder.is_worth_keeping:
                    call.answer = recorder.answer
        finally:
            # Cancel: whoever waits for this call makes it anew.
            if not call.answer and self._calls.get(key) is call:
                del self._calls[key]
            call.is_done.set()
            self._forget_old()

    def _known(self, key: _Key) -> _Call | None:
        call = self._calls.get(key)
        if call is not None and call.is_done.is_set() and self._is_old(call):
            del self._calls[key]
            return None
        return call

    def _is_old(self, call: _Call) -> bool:
        return self._clock.now() - call.made_at > _FOR

    def _forget_old(self) -> None:
        while self._calls:
            key, call = next(iter(self._calls.items()))
            if not call.is_done.is_set() or (
                len(self._calls) <= _REMEMBERED and not self._is_old(call)
            ):
                return
            del self._calls[key]


class _Recorder:
    """Sends an answer on, and keeps a copy while it is small."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._size = 0
        self._is_whole = False
        self.answer: list[Message] = []

    @property
    def is_worth_keeping(self) -> bool:
        """Whether a repeated call is to get this answer: not after a fault of the server's."""
        status: int = self.answer[0]["status"] if self.answer else 500
        return self._is_whole and self._size <= _LARGEST and status < 500 and status != 429

    async def send(self, message: Message) -> None:
        self._size += len(message.get("body", b""))
        if self._size <= _LARGEST:
            self.answer.append(message)
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_whole = True


def _chosen_key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    return _header(scope, _KEY)


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value).decode("latin-1").strip()
    return None


async def _read(receive: Receive) -> bytes:
    """Return a request's body; the layer around this one bounds it."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _hash(scope: Scope, body: bytes) -> bytes:
    parts = (scope["path"].encode(), bytes(scope.get("query_string", b"")), body)
    return hashlib.sha256(b"\0".join(parts)).digest()


async def _repeat(answer: list[Message], send: Send) -> None:
    start, *rest = answer
    await send({**start, "headers": [*start["headers"], (b"idempotency-replayed", b"true")]})
    for message in rest:
        await send(message)
