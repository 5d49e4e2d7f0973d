"""Errors as RFC 9457 problem details: one table for both ends.

A server turns an exception into a problem by `encode`, and a client turns it back into an exception
of the same class by `decode`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from sandpool.errors import (
    AcquireStep,
    AcquireTimeout,
    DeathReason,
    FileFailed,
    NoCapacity,
    PoolDegraded,
    RateLimited,
    RemoteError,
    SandboxDied,
    SandpoolError,
    registry,
)

MEDIA_TYPE = "application/problem+json"

_PROBLEM: dict[str, Any] = {
    "description": "What is wrong",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
                "required": ["type", "title", "status", "detail", "code"],
            }
        }
    },
}

RESPONSES: dict[int | str, dict[str, Any]] = {422: _PROBLEM, "default": _PROBLEM}
"""How a server's description of itself shows what is no answer of success."""

INTERNAL = "internal_error"
"""The code of a fault in the server itself; it says nothing more, and the server's log does."""

_STATUS: Mapping[str, int] = {
    "acquire_timeout": 503,
    "backend_unavailable": 503,
    "bad_address": 400,
    "bad_gateway": 502,
    "bad_request": 400,
    "context_not_found": 404,
    "create_failed": 500,
    "destroy_failed": 500,
    "dial_failed": 502,
    "digest_mismatch": 500,
    "file_failed": 422,
    "file_missing": 404,
    "file_too_large": 413,
    "forbidden_origin": 403,
    "gateway_timeout": 504,
    "guest_error": 500,
    "head_too_large": 431,
    "idempotency_conflict": 409,
    "image_in_use": 409,
    "image_not_found": 400,
    "image_not_stored": 500,
    "image_refused": 422,
    "invalid_spec": 422,
    "invalid_tool_argument": 400,
    "lease_not_found": 404,
    "lease_over": 410,
    "manager_not_started": 503,
    "misdirected": 421,
    "no_capacity": 429,
    "payload_too_large": 413,
    "pool_closed": 409,
    "pool_degraded": 503,
    "pool_exists": 409,
    "pool_in_use": 409,
    "pool_not_found": 404,
    "pool_not_initialized": 400,
    "process_not_found": 404,
    "rate_limited": 429,
    "request_timeout": 408,
    "reset_failed": 500,
    "sandbox_died": 410,
    "sandbox_exists": 409,
    "sandbox_leased": 409,
    "sandbox_not_active": 409,
    "sandbox_not_found": 404,
    "stale_epoch": 409,
    "tool_disabled": 400,
    "tool_not_found": 404,
    "unauthorized": 401,
    "unhealthy": 502,
    "unknown_sandbox_type": 400,
    "unsupported": 501,
}

_REASONS: frozenset[str] = frozenset(get_args(DeathReason))
_STEPS: frozenset[str] = frozenset(get_args(AcquireStep))


def status_of(error: SandpoolError) -> int:
    """Return the HTTP status that this error is answered with."""
    return _STATUS.get(error.code, 500)


def encode(error: SandpoolError) -> dict[str, Any]:
    """Return the problem details of an error: its code, its sentence, and what its class adds."""
    status = status_of(error)
    found: dict[str, Any] = {
        "type": f"urn:sandpool:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status,
        "detail": _detail(error),
        "code": error.code,
    }
    if isinstance(error, SandboxDied):
        found["reason"] = error.reason
    elif isinstance(error, AcquireTimeout):
        found["step"] = error.step
    elif isinstance(error, NoCapacity | RateLimited) and error.retry_after is not None:
        found["retry_after"] = error.retry_after
    elif isinstance(error, FileFailed):
        found |= {"errno": error.errno, "path": error.filename}
    elif isinstance(error, PoolDegraded) and error.cause is not None:
        found["cause"] = str(error.cause)
    return found


def decode(status: int, body: object) -> SandpoolError:
    """Return the exception that a problem stands for.

    What is no problem of ours, or one of a code that this client does not know, becomes a
    `RemoteError` that names the status.
    """
    if not isinstance(body, dict):
        return RemoteError(f"the server answered {status} without a problem that it could name")
    problem = cast("dict[str, Any]", body)
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    kind = registry().get(str(problem.get("code")))
    if kind is None:
        return RemoteError(f"{status}: {detail}")
    if issubclass(kind, FileFailed):
        number, path = problem.get("errno"), problem.get("path")
        return kind(number if isinstance(number, int) else 0, detail, str(path or ""))
    if issubclass(kind, SandboxDied):
        return kind(detail, reason=_reason(problem.get("reason")))
    if issubclass(kind, AcquireTimeout):
        return kind(detail, step=_step(problem.get("step")))
    if issubclass(kind, NoCapacity | RateLimited):
        hint = problem.get("retry_after")
        return kind(detail, retry_after=float(hint) if isinstance(hint, int | float) else None)
    if issubclass(kind, PoolDegraded):
        cause = problem.get("cause")
        return kind(detail, cause=None if cause is None else RemoteError(str(cause)))
    return kind(detail)


def _detail(error: SandpoolError) -> str:
    # An OSError's text has its number and its path, which have fields of their own.
    return str(error.strerror) if isinstance(error, FileFailed) else str(error)


def _reason(value: object) -> DeathReason:
    return cast("DeathReason", value) if value in _REASONS else "killed"


def _step(value: object) -> AcquireStep:
    return cast("AcquireStep", value) if value in _STEPS else "wait"
