"""`Index`: finds a route in one look, where the framework tries one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.server.bodies import replaying
from sandpool.server.direct import Direct, Unusual, Whole, read

_FAILURE = "sandpool.failure"


@dataclass(slots=True)
class _Place:
    """The routes of one template."""

    names: list[str]
    groups: list[int] = field(default_factory=list[int])
    """The groups of the pattern that are the values of these."""
    routes: dict[str, Direct] = field(default_factory=dict[str, Direct])
    """By method; a method that is absent is the framework's to answer."""


class Index:
    """Stands in front of an application, and leaves to it whatever it cannot serve by itself.

    It has the routes that are the application's own, and not those of routers inside of it; wrong
    methods, paths that there are none of, and all errors are the application's to answer.
    """

    def __init__(self, app: FastAPI) -> None:
        """Take in the routes that `app` has by now."""
        self._app = app
        found: dict[str, _Place] = {}
        for route in app.router.routes:
            if isinstance(route, APIRoute) and ":" not in route.path:
                _take_in(route, found)
        self._places: dict[int, _Place] = {}
        number = 1
        for place in found.values():
            self._places[number] = place
            place.groups += range(number + 1, number + 1 + len(place.names))
            number += 1 + len(place.names)
        self._pattern = re.compile("|".join(f"({_as_pattern(path)})" for path in found))
        app.router.middleware_stack = _Failing(app.router.middleware_stack)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or have it served."""
        direct = self._find(scope) if scope["type"] == "http" else None
        if direct is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        scope["route"] = direct.route
        body = b""
        try:
            if direct.has_body:
                body = await read(receive)
            answer = await direct.answer(Request(scope, receive, send), body)
        except Unusual:
            if direct.has_body:
                receive = replaying(body, receive)
            await self._app(scope, receive, send)
        except Exception as failure:  # noqa: BLE001 (the application has an answer for each)
            scope[_FAILURE] = failure
            await self._app(scope, receive, send)
        else:
            if isinstance(answer, Whole):
                start = {"status": answer.status, "headers": answer.raw_headers}
                await send({"type": "http.response.start", **start})
                await send({"type": "http.response.body", "body": answer.body})
            else:
                await self._send(answer, scope, receive, send)

    async def _send(self, answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an answer that may fail, of which the application makes another one."""
        sending = _Sending(send)
        try:
            await answer(scope, receive, sending.send)
        except Exception as failure:
            if sending.has_begun:
                raise
            scope[_FAILURE] = failure
            await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> Direct | None:
        found = self._pattern.fullmatch(scope["path"]) if not scope.get("root_path") else None
        if found is None or found.lastindex is None:
            return None
        place = self._places[found.lastindex]
        direct = place.routes.get(scope["method"])
        if direct is not None:
            values = map(found.__getitem__, place.groups)
            scope["path_params"] = dict(zip(place.names, values, strict=True))
        return direct


class _Sending:
    """Sends on, and knows whether anything has been."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def send(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


class _Failing:
    """What a router begins with: raises what a request has failed with before it came here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure: Exception | None = scope.get(_FAILURE)
        if failure is not None:
            raise failure
        await self._app(scope, receive, send)


def _take_in(route: APIRoute, found: dict[str, _Place]) -> None:
    place = found.setdefault(route.path, _Place(re.findall(r"{(\w+)}", route.path)))
    try:
        direct = Direct(route)
    except Unusual:
        return
    for method in route.methods or ():
        place.routes.setdefault(method, direct)


def _as_pattern(template: str) -> str:
    return re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(template))
