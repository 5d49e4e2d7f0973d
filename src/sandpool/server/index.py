"""`Index`: finds a route in one look, where the framework tries one after the other."""

from __future__ import annotations

import re

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


class Index:
    """Stands in front of a router, and leaves to it whatever it cannot find by itself.

    It has the routes that are the router's own, and not those of routers inside of it; wrong
    methods and paths that there are none of are the router's to answer.
    """

    def __init__(self, router: APIRouter) -> None:
        """Take in the routes that `router` has by now."""
        self._router = router
        found: dict[str, list[APIRoute]] = {}
        for route in router.routes:
            if isinstance(route, APIRoute) and ":" not in route.path:
                found.setdefault(route.path, []).append(route)
        self._routes = list(found.values())
        self._pattern = re.compile("|".join(f"({_as_pattern(path)})" for path in found))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request served."""
        if scope["type"] == "http" and not scope.get("root_path"):
            place = self._pattern.fullmatch(scope["path"])
            if place is not None and place.lastindex is not None:
                for route in self._routes[place.lastindex - 1]:
                    match, child = route.matches(scope)
                    if match is Match.FULL:
                        scope.update(child)
                        await route.handle(scope, receive, send)
                        return
        await self._router.app(scope, receive, send)


def _as_pattern(template: str) -> str:
    return re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
