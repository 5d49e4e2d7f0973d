"""`RemoteContexts`: the stateful interpreters of a sandbox of a server."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from sandpool.client import answers
from sandpool.client.followed import read_result
from sandpool.client.transport import Transport, segment
from sandpool.errors import ContextNotFound
from sandpool.models import ContextResult
from sandpool.service import OnOutput
from sandpool.wire import events
from sandpool.wire.contexts import BUNDLE, DISPLAY, Cell, ContextState, NewContext

_STATES: TypeAdapter[list[ContextState]] = TypeAdapter(list[ContextState])


class RemoteContext:
    """One stateful interpreter of a server's sandbox; implements `service.Context`."""

    def __init__(
        self, transport: Transport, sandbox_id: str, lease_id: str | None, context_id: str
    ) -> None:
        """Name one that is there; called by `RemoteContexts.open`."""
        self.id = context_id
        self._transport = transport
        self._path = f"{_path(sandbox_id)}/{segment(context_id)}"
        self._lease_id = lease_id

    async def run(
        self, code: str, *, timeout: float | None = None, on_output: OnOutput | None = None
    ) -> ContextResult:
        """Run one cell.  After a time-out that interrupting did not end, the context is gone."""
        path, body = f"{self._path}/cells", answers.body(Cell, code=code, timeout=timeout)
        if on_output is None:
            response = await self._transport.call("POST", path, json=body, lease_id=self._lease_id)
            return answers.parse(ContextResult, response.content)
        async with self._transport.stream(
            "POST", path, json=body, lease_id=self._lease_id, accept=events.MEDIA_TYPE
        ) as pieces:
            displays: list[dict[str, str]] = []
            content = await read_result(pieces, on_output, lambda it: _show(it, displays))
        result = answers.parse(ContextResult, content)
        return result.model_copy(update={"displays": tuple(displays)})

    async def aclose(self) -> None:
        """End it; idempotent."""
        try:
            await self._transport.call("DELETE", self._path, lease_id=self._lease_id)
        except ContextNotFound:
            return


class RemoteContexts:
    """The stateful interpreters of one sandbox of a server; implements `service.Contexts`."""

    def __init__(self, transport: Transport, sandbox_id: str, lease_id: str | None) -> None:
        """Name the sandbox, and the lease through which it is used; nothing is called yet."""
        self._transport = transport
        self._sandbox_id = sandbox_id
        self._lease_id = lease_id

    async def open(
        self, *, env: Mapping[str, str | None] | None = None, cwd: str | None = None
    ) -> RemoteContext:
        """Start one."""
        body = answers.body(NewContext, env=dict(env or {}), cwd=cwd)
        response = await self._transport.call(
            "POST", _path(self._sandbox_id), json=body, lease_id=self._lease_id
        )
        return self.get(answers.parse(ContextState, response.content).id)

    def get(self, context_id: str) -> RemoteContext:
        """Return one by its id; that it is gone shows when it is used."""
        return RemoteContext(self._transport, self._sandbox_id, self._lease_id, context_id)

    async def list(self) -> list[str]:
        """Return the ids of the living ones."""
        response = await self._transport.call(
            "GET", _path(self._sandbox_id), lease_id=self._lease_id
        )
        return [state.id for state in answers.parse_as(_STATES, response.content)]


def _show(event: events.Event, displays: list[dict[str, str]]) -> None:
    if event.name == DISPLAY:
        displays.append(answers.parse_as(BUNDLE, event.data))


def _path(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{segment(sandbox_id)}/contexts"
