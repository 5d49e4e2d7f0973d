"""`Direct`: serves what a route is meant for without what the framework does for other routes.

FastAPI declares and describes a route, and says what is wrong with a request.  For one that is in
order it goes through layers, stacks and caches that take longer than most of our calls; this reads
the same parameters by the same fields, and calls the same functions in the same order.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import params
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

_JSON = "application/json"
_IS_JSON = (b"content-type", _JSON.encode())
_CONTENT_TYPE = b"content-type"
_NO_CONTENT = 204


class Unusual(Exception):
    """What is the framework's to serve: a route that uses more of it, or a request to refuse."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that needs nothing of what the framework's can."""

    status: int
    body: bytes
    raw_headers: list[tuple[bytes, bytes]]


class Direct:
    """One route, for requests that are in order."""

    def __init__(self, route: APIRoute) -> None:
        """Take a route to pieces; `Unusual`."""
        self.route = route
        self._status = route.status_code or 200
        self._adapter: TypeAdapter[Any] | None = None
        self._answer: type[Response] = JSONResponse
        if not isinstance(route.response_class, DefaultPlaceholder):
            self._answer = route.response_class
        if not _is_plain(route):
            raise Unusual
        if route.response_model is not None:
            if self._answer is not JSONResponse:
                raise Unusual
            self._adapter = TypeAdapter(route.response_model)
        self._steps: list[_Step] = []
        self._add_step(route.dependant)
        self.has_body = route.body_field is not None
        """Whether a request's body is read here."""
        if len({body.name for step in self._steps for body in step.bodies}) != self.has_body:
            raise Unusual
        self._needs_headers = any(step.response for step in self._steps)

    async def answer(self, request: Request, body: bytes) -> Response | Whole:
        """Answer a request; `Unusual`, before anything is called, and whatever the route raises."""
        if body and _header(request, _CONTENT_TYPE) != _JSON:
            raise Unusual  # it does not say that it is JSON
        given = [step.read(request, body) for step in self._steps]
        headers = _headers() if self._needs_headers else None
        results: list[Any] = []
        for step, values in zip(self._steps, given, strict=True):
            for name, place in step.dependencies:
                values[name] = results[place]
            for name in step.requests:
                values[name] = request
            if step.response is not None:
                values[step.response] = headers
            results.append(await step.call(**values))
        result = results[-1]
        if isinstance(result, Response):
            return result
        answer = self._write(result)
        if headers is not None:
            answer.raw_headers.extend(headers.raw_headers)
        return answer

    def _write(self, result: Any) -> Response | Whole:
        if self._status == _NO_CONTENT:
            return Whole(self._status, b"", [_IS_JSON])
        if self._adapter is None:
            return self._answer(jsonable_encoder(result), self._status)
        checked = self._adapter.validate_python(result, from_attributes=True)
        content = self._adapter.dump_json(checked, by_alias=True)
        length = (b"content-length", b"%d" % len(content))
        return Whole(self._status, content, [length, _IS_JSON])

    def _add_step(self, dependant: Dependant) -> int:
        """Add a function after those that it depends on, once each, and return its place."""
        for place, step in enumerate(self._steps):
            if step.call is dependant.call:
                return place
        needed = [(each.name, self._add_step(each)) for each in dependant.dependencies]
        self._steps.append(_Step.of(dependant, [(name, at) for name, at in needed if name]))
        return len(self._steps) - 1


@dataclass(frozen=True, slots=True)
class _Input:
    """One parameter."""

    name: str
    alias: str
    source: str
    """Where it is looked for: `path`, `query`, `header`, or `body`."""
    validate: Callable[[Any], tuple[Any, Any]]
    is_required: bool
    default: Any

    @classmethod
    def of(cls, field: Any, source: str) -> _Input:
        info = field.field_info
        is_required: bool = info.is_required()
        default = None if is_required else info.get_default(call_default_factory=True)
        # Any other default would have to be copied for each call.
        if not isinstance(default, str | int | float | Enum | NoneType) or info.validate_default:
            raise Unusual
        if isinstance(info, params.Form) or getattr(info, "embed", False):
            raise Unusual
        return cls(field.name, field.alias, source, field.validate, is_required, default)

    def read(self, raw: Any, *, is_given: bool) -> Any:
        """Return the value of what a request gives; `Unusual` if that is not in order."""
        if not is_given:
            if self.is_required:
                raise Unusual
            return self.default
        value, errors = self.validate(raw)
        if errors:
            raise Unusual
        return value


@dataclass(frozen=True, slots=True)
class _Step:
    """One function that is called: a dependency, or at last the route's own."""

    call: Callable[..., Awaitable[Any]]
    inputs: tuple[_Input, ...]
    bodies: tuple[_Input, ...]
    dependencies: tuple[tuple[str, int], ...]
    """The names of parameters, and the places of the steps that they come from."""
    requests: tuple[str, ...]
    response: str | None

    @classmethod
    def of(cls, dependant: Dependant, dependencies: list[tuple[str, int]]) -> _Step:
        call = dependant.call
        if (
            call is None
            or not inspect.iscoroutinefunction(call)
            or not dependant.use_cache
            or dependant.cookie_params
            or dependant.websocket_param_name
            or dependant.background_tasks_param_name
            or dependant.security_scopes_param_name
        ):
            raise Unusual
        requests = (dependant.request_param_name, dependant.http_connection_param_name)
        return cls(
            call=call,
            inputs=tuple(_inputs(dependant)),
            bodies=tuple(_Input.of(field, "body") for field in dependant.body_params),
            dependencies=tuple(dependencies),
            requests=tuple(name for name in requests if name),
            response=dependant.response_param_name,
        )

    def read(self, request: Request, body: bytes) -> dict[str, Any]:
        """Return the values of its parameters; `Unusual`."""
        values: dict[str, Any] = {}
        for each in self.inputs:
            raw = _find(request, each)
            values[each.name] = each.read(raw, is_given=raw is not None)
        for each in self.bodies:
            values[each.name] = each.read(_parsed(body), is_given=bool(body))
        return values


def _is_plain(route: APIRoute) -> bool:
    """Whether a route's result is its answer's content, or the answer itself."""
    return (
        # A class of its own may serve in a way of its own.
        type(route) is APIRoute
        and route.response_model_by_alias
        and not route.response_model_include
        and not route.response_model_exclude
        and not route.response_model_exclude_unset
        and not route.response_model_exclude_defaults
        and not route.response_model_exclude_none
    )


def _inputs(dependant: Dependant) -> Iterator[_Input]:
    for source, fields in (
        ("path", dependant.path_params),
        ("query", dependant.query_params),
        ("header", dependant.header_params),
    ):
        for field in fields:
            if not _is_scalar(field.field_info.annotation):
                raise Unusual
            yield _Input.of(field, source)


def _is_scalar(annotation: Any) -> bool:
    """Whether a parameter's one text is its value; a list, or a model, is made of several."""
    if get_origin(annotation) in (Union, UnionType):
        return all(map(_is_scalar, get_args(annotation)))
    return isinstance(annotation, type) and issubclass(
        annotation, str | int | float | Enum | NoneType
    )


def _find(request: Request, wanted: _Input) -> str | None:
    match wanted.source:
        case "path":
            return request.path_params.get(wanted.alias)
        case "query":
            return request.query_params.get(wanted.alias) if request.scope["query_string"] else None
        case _:
            return _header(request, wanted.alias.lower().encode("latin-1"))


def _header(request: Request, wanted: bytes) -> str | None:
    for name, value in request.scope["headers"]:
        if name == wanted:
            return bytes(value).decode("latin-1")
    return None


async def read(receive: Receive) -> bytes:
    """Return a request's body; `HTTPException`."""
    body = bytearray()
    while True:
        try:
            message = await receive()
        except Exception as error:
            # As the framework has it; what is sent is the answer of the layer that bounds bodies.
            raise HTTPException(400, "There was an error parsing the body") from error
        if message["type"] != "http.request":
            raise HTTPException(400, "There was an error parsing the body")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise Unusual from None


def _headers() -> Response:
    """Return what a route is given to put headers in."""
    holder = Response()
    del holder.headers["content-length"]
    return holder
