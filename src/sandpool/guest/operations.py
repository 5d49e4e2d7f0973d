"""The requests by name: each handler reads its fields, checks them all, and only then acts."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from . import (
    child,
    contexts,
    dialing,
    files,
    frames,
    intake,
    pristine,
    probing,
    processes,
    rehearsal,
    run,
    script,
    terminal,
    transfer,
    tree,
)
from .fields import Fields
from .refusal import Refusal
from .request import Activity
from .settings import PATH

if TYPE_CHECKING:
    from .guest import Guest, Handler
    from .request import Request
    from .source import Source


def hello(guest: Guest, request: Request, fields: Fields) -> None:
    """Say who we are, and take what the environment of all runs begins with."""
    version = fields.integer("version")
    env = fields.environment("env")
    fields.finish()
    if version != frames.VERSION:
        raise Refusal("unsupported", f"the guest speaks version {frames.VERSION}, not {version}")
    guest.endow(env)
    request.respond(greeting(guest.interpreter is not None))


def greeting(has_python: bool) -> dict[str, Any]:
    """Return the answer to `hello`."""
    return {
        "version": frames.VERSION,
        "python": ".".join(map(str, sys.version_info[:3])) if has_python else None,
        "pid": 1,
        "features": sorted(HANDLERS),
    }


def bind(guest: Guest, request: Request, fields: Fields) -> None:
    """Take the epoch of a lease, and what its runs start from."""
    epoch = fields.integer("epoch")
    env = fields.environment("env")
    cwd = fields.path("cwd", None)
    reseed = fields.flag("reseed", True)
    fields.finish()
    binding = guest.binding
    if binding.epoch is not None and epoch < binding.epoch:
        raise Refusal("stale_epoch", f"the sandbox is bound to the later epoch {binding.epoch}")
    binding.bind(epoch, env, cwd, reseed)
    if guest.interpreter is not None:
        guest.interpreter.set_environment(binding.env)
    # The host does not wait for it; what it waits for comes next.
    request.respond_soon({})


def limit(guest: Guest, request: Request, fields: Fields) -> None:
    """Have all that is started from now on held to other rlimits."""
    wanted = fields.rlimits("rlimits")
    fields.finish()
    guest.binding.limit(wanted)

    def respond() -> None:
        # It may have died of them.
        guest.spare.make_later()
        if request.is_open:
            request.respond({})

    request.activity = Activity()
    guest.spare.limit(guest.binding.rlimits, respond)


def ping(guest: Guest, request: Request, fields: Fields) -> None:
    """Show that we live."""
    fields.finish()
    request.respond({})


class _Limits:
    """The fields that `run_code` and `exec` have in common."""

    __slots__ = ("cwd", "env", "max_output", "timeout", "with_stdin")

    def __init__(self, fields: Fields) -> None:
        self.env = fields.environment("env")
        self.cwd: str | None = fields.path("cwd", None)
        self.timeout = fields.seconds("timeout")
        self.max_output: int | None = fields.integer("max_output", None)
        self.with_stdin = fields.flag("stdin", False)


def run_code(guest: Guest, request: Request, fields: Fields) -> None:
    """Run Python code in a fork of this interpreter."""
    argv = fields.strings("argv")
    code: str | None = fields.text("code", None)
    limits = _Limits(fields)
    fields.finish()
    interpreter = guest.needs_python()

    def complete(request: Request, source: Source) -> None:
        binding = guest.binding
        order = (
            source.path,
            argv,
            binding.environment(limits.env),
            guest.directory(limits.cwd),
            binding.reseed,
        )
        started = run.adopt(guest, request, limits.max_output, guest.spare.take(order))
        if started is None:
            program = partial(script.run, interpreter, order)
            started = run.start(guest, request, limits.cwd, True, limits.max_output, program)
        if not limits.with_stdin:
            started.eof(request)
        started.on_finish(partial(end_code, guest, source))
        started.limit(limits.timeout)

    intake.collect(request, guest.sources.create(), code, complete)


def end_code(guest: Guest, source: Source) -> None:
    """Do what is due when a run of code has ended."""
    source.discard()
    guest.spare.make_later()


def warm(guest: Guest, request: Request, fields: Fields) -> None:
    """Answer once a run would find everything ready.

    To be `fully` so is the same here; what serves a sandbox before us has to leave it to us for
    that.
    """
    fields.flag("fully", False)
    fields.finish()

    def respond() -> None:
        if request.is_open:
            request.respond({})

    request.activity = Activity()
    guest.spare.when_parked(partial(rehearsal.rehearse, guest, bind, run_code, respond))


def execute(guest: Guest, request: Request, fields: Fields) -> None:
    """Run a command."""
    argv = fields.strings("argv", required=True)
    fields.flag("fresh", False)
    limits = _Limits(fields)
    fields.finish()
    env = guest.binding.environment(limits.env)
    program = partial(child.execute, argv, env, PATH)
    started = run.start(guest, request, limits.cwd, limits.with_stdin, limits.max_output, program)
    started.limit(limits.timeout)


class _Report(Activity):
    """The list of processes, made in slices."""

    def __init__(self, guest: Guest, request: Request) -> None:
        self._guest = guest
        self._request = request
        self._slices = processes.describe(guest.spare.pid)
        request.activity = self
        self._step()

    def _step(self) -> None:
        if not self._request.is_open:
            return
        found = next(self._slices)
        if found is None:
            self._guest.loop.soon(self._step)
        else:
            self._request.respond({"processes": found})


def list_processes(guest: Guest, request: Request, fields: Fields) -> None:
    """Say what runs in the sandbox."""
    fields.finish()
    _Report(guest, request)


def kill_all(guest: Guest, request: Request, fields: Fields) -> None:
    """Kill every process but the guest."""
    fields.finish()
    spare = guest.spare.pid
    count = sum(processes.is_alive(pid) for pid in processes.pids() if pid != spare)

    def done() -> None:
        answer: dict[str, Any] = {"killed": count}
        if request.is_open:
            request.respond(answer)

    request.activity = Activity()
    guest.hunt(None, done)


HANDLERS: dict[str, Handler] = {
    "hello": hello,
    "bind": bind,
    "limit": limit,
    "ping": ping,
    "warm": warm,
    "run_code": run_code,
    "exec": execute,
    "pty": terminal.open_terminal,
    "dial": dialing.dial,
    "probe": probing.probe,
    "file_read": transfer.read,
    "file_write": transfer.write,
    "file_list": tree.list_directory,
    "file_stat": files.stat,
    "file_mkdir": files.make_directory,
    "file_move": files.move,
    "file_remove": tree.remove,
    "processes": list_processes,
    "kill_all": kill_all,
    "reset": pristine.reset,
    "context_open": contexts.open_context,
    "context_run": contexts.run_in_context,
    "context_close": contexts.close_context,
    "context_list": contexts.list_contexts,
}
