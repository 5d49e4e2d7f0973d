"""The server's own table of routes, so that none is forgotten where all of them are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute


@dataclass(frozen=True)
class Route:
    """One route as it can be called."""

    method: str
    """`WS` for a WebSocket."""
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)

    def fill(self, values: Mapping[str, str]) -> str:
        """Return its path with these values; `KeyError` for a parameter that has none."""
        return re.sub(r"{(\w+)(?::\w+)?}", lambda match: values[match[1]], self.path)


def walk(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[Route]:
    """Return all routes, also those of routers inside of routers."""
    for route in routes:
        inner: Any = getattr(route, "original_router", None)
        if inner is not None:
            context: Any = getattr(route, "include_context")  # noqa: B009 - FastAPI's own type
            yield from walk(inner.routes, prefix + context.prefix)
            continue
        path = prefix + str(getattr(route, "path", ""))
        for method in sorted(getattr(route, "methods", None) or {"WS"}):
            if method != "HEAD":
                yield Route(method, path)
