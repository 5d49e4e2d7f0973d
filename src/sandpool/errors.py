"""Every exception that sandpool raises on purpose.

Each class has a `code`, its stable name on the wire, and says who is to `blame`: the `caller` (mend
the call), the `task` (the tenant's code did it) or the `infrastructure` (retry, or mask the sample
when training).  Each class also derives from the builtin that callers of older interfaces catch.

A non-zero exit, a timed-out run and truncated output are results (`models.ExecResult`), not errors.
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar, Literal

Blame = Literal["caller", "task", "infrastructure"]
DeathReason = Literal["oom", "killed", "backend", "expired"]
AcquireStep = Literal["wait", "create", "reset", "check"]


class SandpoolError(Exception):
    """Base of everything sandpool raises on purpose."""

    code: ClassVar[str] = "sandpool_error"
    blame: ClassVar[Blame] = "infrastructure"


# --- the caller's mistakes ------------------------------------------------------------------------


class InvalidSpec(SandpoolError, ValueError):
    """A configuration, specification or argument is malformed or impossible."""

    code = "invalid_spec"
    blame = "caller"


class UnknownSandboxType(SandpoolError, ValueError, RuntimeError):
    """No backend is registered for this sandbox type.

    Both a `ValueError` and a `RuntimeError`: the enclave interface documents the first and its
    original raises the second.
    """

    code = "unknown_sandbox_type"
    blame = "caller"


class ImageNotFound(SandpoolError, ValueError, RuntimeError):
    """No image has this name, or no root directory is at this path.

    Also a `RuntimeError`: the enclave interface raises that when a sandbox cannot be started.
    """

    code = "image_not_found"
    blame = "caller"


class ImageRefused(SandpoolError, ValueError):
    """An image is malformed, too large, or has in it what no image may have."""

    code = "image_refused"
    blame = "caller"


class ImageInUse(SandpoolError, RuntimeError):
    """Sandboxes are made from the image, so it cannot be removed."""

    code = "image_in_use"
    blame = "caller"


class SandboxNotFound(SandpoolError, ValueError):
    """No sandbox has this id."""

    code = "sandbox_not_found"
    blame = "caller"


class SandboxNotActive(SandpoolError, ValueError, RuntimeError):
    """The sandbox exists, but is not started, stopped or failed, so it can run nothing.

    The enclave interface raises `ValueError` for a tool and `RuntimeError` for a command.
    """

    code = "sandbox_not_active"
    blame = "caller"


class SandboxLeased(SandpoolError, ValueError):
    """The sandbox is lent to somebody else at this moment."""

    code = "sandbox_leased"
    blame = "caller"


class SandboxExists(SandpoolError, ValueError):
    """A sandbox with this id is already there."""

    code = "sandbox_exists"
    blame = "caller"


class PoolNotFound(SandpoolError, ValueError):
    """No pool has this name."""

    code = "pool_not_found"
    blame = "caller"


class PoolExists(SandpoolError, ValueError):
    """A pool with this name is already there."""

    code = "pool_exists"
    blame = "caller"


class PoolInUse(SandpoolError, RuntimeError):
    """The pool has sandboxes that are still leased, so it cannot be deleted."""

    code = "pool_in_use"
    blame = "caller"


class PoolNotInitialized(SandpoolError, ValueError):
    """A pool call came before `initialize_pool`."""

    code = "pool_not_initialized"
    blame = "caller"


class ToolNotFound(SandpoolError, ValueError):
    """The sandbox has no tool of this name."""

    code = "tool_not_found"
    blame = "caller"


class ToolDisabled(SandpoolError, ValueError):
    """The tool is configured, but not enabled."""

    code = "tool_disabled"
    blame = "caller"


class InvalidToolArgument(SandpoolError, ValueError):
    """A tool argument is unknown, missing or of the wrong type."""

    code = "invalid_tool_argument"
    blame = "caller"


class LeaseOver(SandpoolError, RuntimeError):
    """This handle's lease has ended; the sandbox is no longer the caller's."""

    code = "lease_over"
    blame = "caller"


class LeaseNotFound(SandpoolError, ValueError):
    """No lease has this id."""

    code = "lease_not_found"
    blame = "caller"


class StaleEpoch(SandpoolError, RuntimeError):
    """The guest refused a request that carries the epoch of an earlier lease."""

    code = "stale_epoch"
    blame = "caller"


class ManagerNotStarted(SandpoolError, RuntimeError):
    """The manager is not running; call `start()` or use `async with`."""

    code = "manager_not_started"
    blame = "caller"


class ContextNotFound(SandpoolError, ValueError):
    """The sandbox has no interpreter context of this id, or it has ended."""

    code = "context_not_found"
    blame = "caller"


class Unsupported(SandpoolError, NotImplementedError):
    """This backend, image or host cannot do what was asked."""

    code = "unsupported"
    blame = "caller"


# --- what went wrong inside the sandbox -----------------------------------------------------------


class FileFailed(SandpoolError, OSError):
    """A file operation inside the sandbox failed; `errno` and `filename` say how."""

    code = "file_failed"
    blame = "task"

    def __init__(self, errno: int, message: str, path: str = "") -> None:
        """Make it from the guest's errno, its text and the path inside the sandbox."""
        super().__init__(errno, message, path)


class FileMissing(FileFailed, FileNotFoundError):
    """A path inside the sandbox does not exist."""

    code = "file_missing"


class FileTooLarge(SandpoolError, ValueError):
    """A file or archive is larger than the limit of the call."""

    code = "file_too_large"
    blame = "caller"


class DialFailed(SandpoolError, ConnectionError):
    """Nothing inside the sandbox accepts connections at this port."""

    code = "dial_failed"
    blame = "task"


# --- pools ----------------------------------------------------------------------------------------


class PoolClosed(SandpoolError, RuntimeError):
    """The pool is not open yet, or already closed; the message says which."""

    code = "pool_closed"
    blame = "caller"


class NoCapacity(SandpoolError, RuntimeError):
    """A limit on sandboxes or waiting callers is reached."""

    code = "no_capacity"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Say what is full; `retry_after` is a hint in seconds, if there is one."""
        super().__init__(message)
        self.retry_after = retry_after


class PoolDegraded(SandpoolError, RuntimeError):
    """The pool cannot make sandboxes at the moment; `cause` is the last failure."""

    code = "pool_degraded"

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        """Carry the failure that stopped the refill."""
        super().__init__(message)
        self.cause = cause


class AcquireTimeout(SandpoolError, TimeoutError):
    """No sandbox could be had in time; `step` says what was being waited for."""

    code = "acquire_timeout"

    def __init__(self, message: str, *, step: AcquireStep = "wait") -> None:
        """Name the step that took too long."""
        super().__init__(message)
        self.step: AcquireStep = step


# --- backends -------------------------------------------------------------------------------------


class BackendUnavailable(SandpoolError, RuntimeError):
    """This host cannot run the backend; the message names the reason and the alternative."""

    code = "backend_unavailable"


class ImageNotStored(SandpoolError, RuntimeError):
    """An image could not be fetched, read or written; nothing of it is kept."""

    code = "image_not_stored"


class DigestMismatch(ImageNotStored):
    """What came is not what was asked for: its digest is another."""

    code = "digest_mismatch"


class CreateFailed(SandpoolError, RuntimeError):
    """A sandbox could not be made."""

    code = "create_failed"


class Unhealthy(SandpoolError, RuntimeError):
    """A sandbox lives, but what runs in it does not do what its pool's health check asks for."""

    code = "unhealthy"
    blame = "task"


class ResetFailed(SandpoolError, RuntimeError):
    """A sandbox could not be proved clean, and was destroyed."""

    code = "reset_failed"


class DestroyFailed(SandpoolError, RuntimeError):
    """A sandbox did not end within its bound."""

    code = "destroy_failed"


class SandboxDied(SandpoolError, RuntimeError):
    """The sandbox ended while it was in use; `reason` says why."""

    code = "sandbox_died"

    def __init__(self, message: str, *, reason: DeathReason = "killed") -> None:
        """Tell an out-of-memory kill, a kill, a backend fault and an expiry apart."""
        super().__init__(message)
        self.reason: DeathReason = reason


class GuestError(SandpoolError, RuntimeError):
    """The guest failed a request in a way that has no class of its own."""

    code = "guest_error"


# --- the edge -------------------------------------------------------------------------------------


class Unauthorized(SandpoolError, PermissionError):
    """The key is missing or wrong."""

    code = "unauthorized"
    blame = "caller"


class ForbiddenOrigin(SandpoolError, PermissionError):
    """The request comes from a web page, or names a host, that this server does not serve."""

    code = "forbidden_origin"
    blame = "caller"


class RateLimited(SandpoolError, RuntimeError):
    """The key has made more requests in this time than it may."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Say what is exceeded; `retry_after` is in seconds."""
        super().__init__(message)
        self.retry_after = retry_after


class PayloadTooLarge(SandpoolError, ValueError):
    """A request's body is larger than the server takes."""

    code = "payload_too_large"
    blame = "caller"


class HeadTooLarge(SandpoolError, ValueError):
    """A request's line and headers are more than the server reads."""

    code = "head_too_large"
    blame = "caller"


class RequestTimeout(SandpoolError, TimeoutError):
    """A request's head or body did not come in time."""

    code = "request_timeout"
    blame = "caller"


class IdempotencyConflict(SandpoolError, ValueError):
    """An `Idempotency-Key` was used before, for another request."""

    code = "idempotency_conflict"
    blame = "caller"


class ProcessNotFound(SandpoolError, ValueError):
    """The sandbox has no process of this id, or it ended long ago."""

    code = "process_not_found"
    blame = "caller"


class BadAddress(SandpoolError, ValueError):
    """The address of a sandbox's port could be read in two ways, or in none."""

    code = "bad_address"
    blame = "caller"


class BadRequest(SandpoolError, ValueError):
    """A request could be taken for two different ones, so it is taken for none."""

    code = "bad_request"
    blame = "caller"


class Misdirected(SandpoolError, ValueError):
    """The host name lies below the server's domain, but is no sandbox's port."""

    code = "misdirected"
    blame = "caller"


class BadGateway(SandpoolError, ConnectionError):
    """A server inside a sandbox broke off, or spoke something other than HTTP."""

    code = "bad_gateway"
    blame = "task"


class GatewayTimeout(SandpoolError, TimeoutError):
    """A server inside a sandbox did not answer in time."""

    code = "gateway_timeout"
    blame = "task"


class RemoteError(SandpoolError, RuntimeError):
    """A server answered with an error code that this client does not know."""

    code = "remote_error"


class ServerUnreachable(SandpoolError, RuntimeError, ConnectionError):
    """A server did not answer, or its answer broke off; the message names its URL."""

    code = "server_unreachable"


def file_error(errno: int, message: str, path: str) -> FileFailed:
    """Pick the class for an errno that the guest reported for `path`."""
    kind = FileMissing if errno == _errno.ENOENT else FileFailed
    return kind(errno, message, path)


def registry() -> dict[str, type[SandpoolError]]:
    """Map each stable code to its class; the only way from a code on the wire to a class."""
    found: dict[str, type[SandpoolError]] = {}
    queue: list[type[SandpoolError]] = [SandpoolError]
    while queue:
        kind = queue.pop()
        found[kind.code] = kind
        queue.extend(kind.__subclasses__())
    return found
