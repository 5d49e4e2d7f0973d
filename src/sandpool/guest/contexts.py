"""The stateful interpreters of a sandbox, by name, and the requests for them."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from . import cell, frames, intake
from .context import Context, not_found
from .outlet import Outlet
from .refusal import Refusal, no_room
from .request import Activity
from .turn import Turn

if TYPE_CHECKING:
    from .fields import Fields
    from .guest import Guest
    from .request import Request
    from .source import Source

MAX_CONTEXTS = 64
"""Contexts at one time; one more is refused with `busy`."""


class Contexts:
    """Those that live, or are being killed."""

    __slots__ = ("_by_name", "_count", "_guest")

    def __init__(self, guest: Guest) -> None:
        """Begin with none."""
        self._guest = guest
        self._by_name: dict[str, Context] = {}
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of any."""
        return not self._by_name

    def open(self, cwd: str | None, env: dict[str, str | None]) -> Context:
        """Start one; Refusal if that cannot be."""
        guest = self._guest
        interpreter = guest.needs_python()
        if len(self._by_name) >= MAX_CONTEXTS:
            raise Refusal("busy", f"{MAX_CONTEXTS} contexts are open already")
        program = partial(cell.serve, interpreter, guest.binding.reseed, env)
        plumbing = guest.plumb(with_stdin=False)
        try:
            # As plain descriptors: a socket object would close its own in the child on the way out.
            control, kept = (end.detach() for end in socket.socketpair())
        except OSError as error:
            plumbing.close()
            raise no_room(error) from error
        try:
            tag, pid = guest.fork(
                program,
                cwd,
                plumbing.stdin,
                plumbing.stdout,
                plumbing.stderr,
                kept=kept,
            )
        except Exception:
            plumbing.close()
            os.close(control)
            os.close(kept)
            raise
        # Not in a `finally`: the child leaves through here, and needs it.
        os.close(kept)
        plumbing.close_theirs()
        outlets = (
            Outlet(guest.loop, guest.connection, plumbing.output, frames.STDOUT),
            Outlet(guest.loop, guest.connection, plumbing.error, frames.STDERR),
        )
        self._count += 1
        name = f"ctx-{self._count}"
        context = Context(guest, name, tag, pid, control, outlets)
        context.on_gone(partial(self._by_name.pop, name))
        self._by_name[name] = context
        return context

    def find(self, name: str) -> Context:
        """Return one that lives; Refusal if there is none of that name."""
        context = self._by_name.get(name)
        if context is None or context.is_ending:
            raise not_found(name)
        return context

    def close(self, request: Request, name: str) -> None:
        """End one and answer when nothing of it is left; one that has gone is fine."""
        context = self._by_name.get(name)
        if context is None:
            request.respond({})
            return
        request.activity = Activity()

        def closed() -> None:
            if request.is_open:
                request.respond({})

        context.on_gone(closed)
        context.end("the context was closed")

    def describe(self) -> list[dict[str, object]]:
        """Return the `contexts` of the protocol page."""
        return [
            {"context": context.name, "count": context.count, "busy": context.is_busy}
            for context in self._by_name.values()
            if not context.is_ending
        ]


def open_context(guest: Guest, request: Request, fields: Fields) -> None:
    """Start a stateful interpreter."""
    env = fields.environment("env")
    cwd: str | None = fields.path("cwd", None)
    fields.finish()
    context = guest.contexts.open(cwd, env)
    request.respond({"context": context.name})


def run_in_context(guest: Guest, request: Request, fields: Fields) -> None:
    """Run one cell, when those before it are over."""
    name: str = fields.text("context")
    code: str | None = fields.text("code", None)
    timeout = fields.seconds("timeout")
    max_output: int | None = fields.integer("max_output", None)
    fields.finish()
    guest.contexts.find(name)

    def complete(request: Request, source: Source) -> None:
        # Again: it may have gone while the code was on its way.
        context = guest.contexts.find(name)
        turn = Turn(context, request, source, timeout, max_output)
        request.activity = turn
        context.enter(turn)

    intake.collect(request, guest.sources.create(), code, complete)


def close_context(guest: Guest, request: Request, fields: Fields) -> None:
    """End a context and everything that it started."""
    name: str = fields.text("context")
    fields.finish()
    guest.contexts.close(request, name)


def list_contexts(guest: Guest, request: Request, fields: Fields) -> None:
    """Say which contexts live."""
    fields.finish()
    request.respond({"contexts": guest.contexts.describe()})
