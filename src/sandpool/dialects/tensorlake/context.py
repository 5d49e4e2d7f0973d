"""What every route starts from: the dialect, the namespace, and the sandbox of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandpool.dialects.tensorlake.dialect import TensorlakeDialect
from sandpool.dialects.tensorlake.namespace import Namespace
from sandpool.dialects.tensorlake.record import Record

STATE = "tensorlake"
"""The name of the dialect in the state of the application that serves it."""


def find_dialect(connection: HTTPConnection) -> TensorlakeDialect:
    """Return the dialect that this application serves."""
    dialect: TensorlakeDialect = getattr(connection.app.state, STATE)
    return dialect


CurrentDialect = Annotated[TensorlakeDialect, Depends(find_dialect)]


async def find_namespace(connection: HTTPConnection, dialect: CurrentDialect) -> Namespace:
    """Return the namespace that the path names, or the key's own where the path is flat."""
    return await dialect.find_namespace(connection, connection.path_params.get("namespace"))


CurrentNamespace = Annotated[Namespace, Depends(find_namespace)]


@dataclass(frozen=True, slots=True)
class Target:
    """The sandbox that a data-plane request is for."""

    namespace: Namespace
    record: Record


async def find_target(connection: HTTPConnection, dialect: CurrentDialect) -> Target:
    """Return the sandbox that the dispatcher has named; `SandboxNotFound`."""
    return Target(*await dialect.find_sandbox(connection))


CurrentTarget = Annotated[Target, Depends(find_target)]


def listener_url(connection: HTTPConnection) -> str:
    """Return the URL for a sandbox's own interface: by default of the socket that a request used.

    It is not made from the request's host, which is whatever the client says.
    """
    public = find_dialect(connection).settings.url
    if public is not None:
        return public
    host, port = connection.scope.get("server") or ("127.0.0.1", None)
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}" if port is None else f"http://{name}:{port}"
