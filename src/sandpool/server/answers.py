"""Answers given before, or instead of, a route's own: problems, over HTTP and WebSocket."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from starlette.types import Scope, Send

from sandpool.errors import AcquireTimeout, NoCapacity, RateLimited, SandpoolError
from sandpool.wire import problems


def problem_headers(error: SandpoolError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with an error's problem, besides the length."""
    headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
    if isinstance(error, NoCapacity | RateLimited) and error.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
    elif isinstance(error, AcquireTimeout):
        headers.append((b"retry-after", b"1"))
    if problems.status_of(error) == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


@dataclass(frozen=True, slots=True)
class Refusal:
    """A problem as it is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def refusal(error: SandpoolError) -> Refusal:
    """Return an error's problem as it is sent."""
    body = json.dumps(problems.encode(error)).encode()
    length = (b"content-length", str(len(body)).encode())
    return Refusal(problems.status_of(error), [*problem_headers(error), length], body)


async def send_problem(scope: Scope, send: Send, error: SandpoolError) -> None:
    """Answer a request, or the opening of a WebSocket, with an error's problem."""
    problem = refusal(error)
    start = {"status": problem.status, "headers": problem.headers}
    if scope["type"] == "http":
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": problem.body})
    elif "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": problem.body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
