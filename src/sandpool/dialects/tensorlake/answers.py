"""How errors are answered here: a message and a code, on the status that clients look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from sandpool.errors import NoCapacity, RateLimited, SandpoolError
from sandpool.wire import problems

_log = logging.getLogger(__name__)

_STATUS = {
    "acquire_timeout": 504,
    "file_failed": 400,
    "invalid_spec": 400,
    "sandbox_leased": 409,
}
"""Where this interface has another status for an error than the native one."""


class Route(APIRoute):
    """A route whose errors are answered in this dialect's words."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, errors caught."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except SandpoolError as error:
                return refusal(error)
            except RequestValidationError as error:
                return _message(400, _first_fault(error), "invalid_spec")
            except HTTPException as error:
                return _message(error.status_code, str(error.detail), "http_error")

        return answer


def refusal(error: SandpoolError) -> Response:
    """Return what an error is answered with."""
    status = status_of(error)
    if status >= 500 and error.blame != "caller":
        _log.warning("%s: %s", error.code, error)
    answer = _message(status, str(error), error.code)
    if isinstance(error, NoCapacity | RateLimited) and error.retry_after is not None:
        answer.headers["retry-after"] = str(round(error.retry_after + 0.5))
    return answer


def status_of(error: SandpoolError) -> int:
    """Return the status that an error is answered with."""
    return _STATUS.get(error.code, problems.status_of(error))


def _message(status: int, message: str, code: str) -> Response:
    return JSONResponse({"message": message, "code": code}, status)


def _first_fault(error: RequestValidationError) -> str:
    """Say what is wrong with a request, without what it held: that may be a secret."""
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"] if part != "body")
        return f"{where or 'body'}: {str(fault['msg']).removeprefix('Value error, ')}"
    return "the request is malformed"
