"""How long a call that makes or claims a sandbox waits for it, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from sandpool.clock import Clock
from sandpool.dialects.tensorlake.context import listener_url
from sandpool.dialects.tensorlake.dialect import TensorlakeDialect
from sandpool.dialects.tensorlake.models import FileSystemMount
from sandpool.dialects.tensorlake.namespace import Namespace
from sandpool.dialects.tensorlake.record import Record
from sandpool.errors import InvalidSpec
from sandpool.pool.bound import within

_TIMEOUT_HEADER = "x-tensorlake-request-timeout-ms"
_GRACE_HEADER = "x-tensorlake-request-timeout-grace-ms"
_SHORT = 2.0
"""Seconds that a call waits whose client would as well ask again: a container is made in less."""
_LONGEST = 290.0
"""Seconds that any call waits."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer may take."""

    seconds: float
    is_all: bool
    """Whether this is all the time that the client has, so that it is told of a time-out."""


@dataclass(frozen=True, slots=True)
class Creation:
    """What a call is answered."""

    status: int
    content: dict[str, Any]


def patience(headers: Mapping[str, str]) -> Patience:
    """Return how long a request's client is ready to wait.

    One that names a grace wants to be answered that long before it gives up, and not before.  Any
    other gives up without a word at the end of its time, and so is answered long before that.
    """
    timeout = _seconds(headers.get(_TIMEOUT_HEADER))
    grace = _seconds(headers.get(_GRACE_HEADER))
    if timeout is None:
        return Patience(_SHORT, is_all=False)
    if grace is None:
        return Patience(min(_SHORT, timeout / 2), is_all=False)
    return Patience(max(0.0, min(_LONGEST, timeout - grace)), is_all=True)


def _seconds(text: str | None) -> float | None:
    return float(text) / 1000 if text is not None and text.isdecimal() and len(text) < 12 else None


def refuse_mounts(mounts: Sequence[FileSystemMount]) -> None:
    """Raise `InvalidSpec` for file systems: there are none to mount."""
    if mounts:
        raise InvalidSpec("file_systems: a sandbox here has no file systems but its own")


def terminate_unheard(
    dialect: TensorlakeDialect, namespace: Namespace, record: Record, request: Request
) -> None:
    """Have a sandbox ended if its client has left before it was told of it."""
    dialect.undo_if_unheard(request, lambda: namespace.terminate(record))


async def answer_creation(
    dialect: TensorlakeDialect, namespace: Namespace, record: Record, request: Request
) -> Creation:
    """Wait for a sandbox to run, as long as makes sense, and return the answer.

    Raises what is wrong with the request where that has come out only now.
    """
    limit = patience(request.headers)
    reason = await namespace.pending_reason(record)
    if record.status == "pending" and (reason != "pool_at_capacity" or limit.is_all):
        await _wait(dialect.clock, record, limit.seconds)
    if record.failure is not None and record.failure.blame == "caller":
        raise record.failure.with_traceback(None)
    if record.status == "pending" and limit.is_all:
        return Creation(504, {"sandbox_id": record.id, "status": "timeout"})
    return await describe_creation(namespace, record, request)


async def describe_creation(namespace: Namespace, record: Record, request: Request) -> Creation:
    """Return the answer for a sandbox as it stands."""
    content: dict[str, Any] = {"sandbox_id": record.id, "status": record.status}
    if record.name is not None:
        content["name"] = record.name
    if record.status == "pending":
        content["pending_reason"] = await namespace.pending_reason(record)
        return Creation(202, content)
    if record.is_over:
        content["reason"] = record.termination_reason
        content["termination_reason"] = record.termination_reason
        content["error_details"] = record.error_details
        return Creation(200, content)
    content["sandbox_url"] = listener_url(request)
    return Creation(200, content)


async def _wait(clock: Clock, record: Record, seconds: float) -> None:
    async def settled() -> None:
        while record.status == "pending":
            await record.wait_change()

    try:
        await within(clock, seconds, settled)
    except TimeoutError:
        return
