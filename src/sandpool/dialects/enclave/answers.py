"""The status codes of this interface, where they are not the native API's.

Its clients tell absence, mistakes and failures apart by the status alone, and read the text in
`detail`; the body is the native API's problem all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from sandpool.errors import (
    AcquireTimeout,
    FileFailed,
    FileTooLarge,
    NoCapacity,
    RateLimited,
    SandboxLeased,
    SandboxNotActive,
    SandboxNotFound,
    SandpoolError,
    ToolDisabled,
    ToolNotFound,
    Unsupported,
)
from sandpool.wire import problems


@dataclass(frozen=True, slots=True)
class _Statuses:
    """The statuses of one operation: by class, else by whose fault it is."""

    by_class: Mapping[type[SandpoolError], int]
    caller: int
    """For the caller's other mistakes."""
    other: int
    """For everything else."""


_ENDING = _Statuses({SandboxNotFound: 404, SandboxLeased: 409}, caller=500, other=500)

_STATUSES: Mapping[str, _Statuses] = {
    "create_sandbox": _Statuses({}, caller=400, other=400),
    "stop_sandbox": _ENDING,
    "delete_sandbox": _ENDING,
    "execute_tool": _Statuses(
        {
            SandboxNotFound: 404,
            SandboxNotActive: 404,
            ToolNotFound: 404,
            ToolDisabled: 404,
            SandboxLeased: 409,
        },
        caller=400,
        other=500,
    ),
    "put_archive": _Statuses(
        {
            SandboxNotFound: 404,
            SandboxNotActive: 404,
            SandboxLeased: 409,
            FileTooLarge: 413,
            FileFailed: 400,
            Unsupported: 501,
        },
        caller=400,
        other=500,
    ),
    "initialize_pool": _Statuses({}, caller=400, other=500),
    "execute_tool_in_pool": _Statuses({AcquireTimeout: 408}, caller=400, other=500),
}
"""By the name of the operation; one that is not here has the native API's."""


def status_of(operation: str, error: SandpoolError) -> int:
    """Return the status that an operation answers an error with."""
    statuses = _STATUSES.get(operation)
    if statuses is None or isinstance(error, NoCapacity | RateLimited):
        return problems.status_of(error)
    for kind, status in statuses.by_class.items():
        if isinstance(error, kind):
            return status
    return statuses.caller if error.blame == "caller" else statuses.other


class EnclaveRoute(APIRoute):
    """A route that answers errors with this interface's status codes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route, its errors turned into answers."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except SandpoolError as error:
                return _answer(self.name, error)

        return answer


def _answer(operation: str, error: SandpoolError) -> Response:
    status = status_of(operation, error)
    headers: dict[str, str] = {}
    if isinstance(error, NoCapacity | RateLimited) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    body = {**problems.encode(error), "status": status}
    return JSONResponse(body, status, headers, media_type=problems.MEDIA_TYPE)
