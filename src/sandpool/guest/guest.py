"""The guest: what it holds together, and how a frame finds its request.

Invariants:

    G1  `requests` holds exactly the requests that are open, at most `MAX_REQUESTS`.
    G2  Nothing that a tenant does raises an exception here; what still gets out of a handler is a
        bug of ours, closes that request with `internal`, and leaves the others alone.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from . import child, frames, processes
from .connection import Connection
from .fields import Fields
from .hunt import Hunt
from .kin import Kin, ceiling
from .loop import Loop
from .reaper import Reaper
from .refusal import Refusal, bad_request, file_failed, no_room
from .request import Request
from .run import Plumbing
from .settings import Binding, Settings, apply
from .source import Sources
from .spare import EarlySpare, Spare

if TYPE_CHECKING:
    from .contexts import Contexts
    from .interpreter import Interpreter
    from .outlet import Outlet
    from .pristine import Pristine

MAX_REQUESTS = 64
"""Open requests at one time; one more is refused with `busy`."""

_MAX_LINGERING = 128
"""Pipes kept open, and emptied, for programs in the background of runs that have ended."""

Handler = Callable[["Guest", Request, Fields], None]


class Guest:
    """Process 1 of a sandbox."""

    __slots__ = (
        "_lingering",
        "binding",
        "connection",
        "contexts",
        "handlers",
        "interpreter",
        "kin",
        "loop",
        "null",
        "pristine",
        "reaper",
        "requests",
        "settings",
        "sources",
        "spare",
    )

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        settings: Settings,
        handlers: dict[str, Handler],
        interpreter: Interpreter | None,
        *,
        spare: EarlySpare | None = None,
        with_spare: bool = False,
    ) -> None:
        """Begin to listen; `interpreter` is None where the image has no Python.

        A spare that there is not yet is forked first of all, if it is wanted: what we touch before
        that, we pay for twice.
        """
        self.settings = settings
        self.binding = Binding(settings)
        self.interpreter = interpreter
        self.kin = Kin(ceiling())
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.spare = Spare(self)
        if spare is not None:
            self.spare.adopt(spare)
        elif with_spare:
            self.spare.fork()
        self.handlers = handlers
        self.contexts: Contexts
        self.pristine: Pristine | None = None
        """What the sandbox was like at its start; None where it is not to be reset."""
        self.requests: dict[int, Request] = {}  # Invariant G1
        self.loop = Loop()
        self.reaper = Reaper(self.loop)
        self.sources = Sources(settings)
        self.connection = Connection(self.loop, read_fd, write_fd, self._receive)
        self._lingering: deque[Outlet] = deque()
        if self.spare.pid:
            self.spare.attend()
            # It may have ended before anybody listened for that.
            self.loop.soon(self.reaper.reap)

    def _receive(self, number: int, kind: int, payload: bytes) -> None:
        """Take one frame from the host.  Raises FrameError."""
        request = self.requests.get(number)
        if kind == frames.REQUEST:
            if request is not None:
                raise frames.FrameError(f"request {number} is already open")
            self._open(number, payload)
        elif request is not None:
            try:
                request.receive(kind, payload)
            except Exception as error:
                if not request.is_open:
                    raise
                _close_with(request, error)
        # A frame for a request that has just ended crossed our answer on the wire: dropped.

    def _open(self, number: int, payload: bytes) -> None:
        values = frames.decode_json(payload)
        request = Request(number, self.connection, self.forget)
        is_full = len(self.requests) >= MAX_REQUESTS
        self.requests[number] = request
        try:
            handler = self._admit(values, is_full)
            handler(self, request, Fields(values))
        except Exception as error:
            if not request.is_open:
                raise
            _close_with(request, error)

    def _admit(self, values: dict[str, Any], is_full: bool) -> Handler:
        """Return who serves the request, and leave its own fields in `values`; or Refusal."""
        if is_full:
            raise Refusal("busy", f"{MAX_REQUESTS} requests are open already")
        op = values.pop("op", None)
        handler = self.handlers.get(op) if isinstance(op, str) else None
        if handler is None:
            raise bad_request(f"unknown op: {op!r:.100}")
        if op != "bind":
            epoch = values.pop("epoch", None)
            if op not in _UNFENCED:
                self._check_epoch(epoch)
        return handler

    def _check_epoch(self, epoch: object) -> None:
        bound = self.binding.epoch
        if epoch != bound or isinstance(epoch, bool):
            raise Refusal(
                "stale_epoch",
                f"the request is of epoch {epoch!r:.40}, the sandbox is bound to {bound!r}",
            )

    def forget(self, number: int) -> None:
        """Note that a request has been closed."""
        del self.requests[number]

    def endow(self, env: dict[str, str | None]) -> None:
        """Change what the environment of all runs begins with; no lease has begun yet."""
        if env:
            apply(self.settings.env, env)
            self.binding = Binding(self.settings)
            if self.interpreter is not None:
                self.interpreter.set_environment(self.binding.env)

    def needs_python(self) -> Interpreter:
        """Return the interpreter; Refusal where the image has none."""
        if self.interpreter is None:
            raise Refusal(
                "unsupported", "this sandbox's image has no Python; run a command with exec instead"
            )
        return self.interpreter

    def plumb(self, with_stdin: bool) -> Plumbing:
        """Return the pipes for one program."""
        try:
            return Plumbing(self.null, with_stdin)
        except OSError as error:
            raise no_room(error) from error

    def _resolve(self, cwd: str | None) -> str:
        return self.binding.resolve(cwd) if cwd is not None else self.binding.cwd

    def _open_directory(self, path: str) -> int:
        try:
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise file_failed(error, path) from error

    def directory(self, cwd: str | None) -> str:
        """Return the working directory that `cwd` means; Refusal if it cannot be entered."""
        path = self._resolve(cwd)
        os.close(self._open_directory(path))
        return path

    def fork(
        self,
        program: Callable[[], None],
        cwd: str | None,
        stdin: int,
        stdout: int,
        stderr: int,
        kept: int | None = None,
    ) -> tuple[int, int]:
        """Fork a child of the tenant that runs `program`; return its tag and process id.

        Refusal if `cwd` cannot be entered or there is no room for a process.
        """
        directory = self._open_directory(self._resolve(cwd))
        tag = self.kin.issue()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(directory)
            self.kin.retire(tag, is_empty=False)
            raise no_room(error) from error
        if pid == 0:
            rlimits = self.binding.rlimits
            berth = child.Berth(tag, rlimits, directory, stdin, stdout, stderr, kept)
            raise child.Departure(partial(_depart, self.settings, berth, program))
        os.close(directory)
        return tag, pid

    def hunt(self, tag: int | None, done: Callable[[], None]) -> Hunt:
        """Kill everything that carries `tag`, or simply everything; then call `done`."""
        return Hunt(self.loop, self.reaper, self.kin, self.spare, tag, done)

    def retire(self, tag: int) -> None:
        """Note that the program of `tag` has ended."""
        self.reaper.reap()
        self.kin.retire(tag, is_empty=not self.reaper.has_children)
        if self.kin.is_crowded:
            self.kin.forget_all_but(processes.tags())

    def linger(self, outlet: Outlet) -> None:
        """Keep a pipe that nobody listens to any more open for those who still write to it.

        A server left in the background must not die of SIGPIPE because its run has been answered.
        """
        if outlet.has_ended:
            return
        outlet.detach()
        self._lingering = deque(other for other in self._lingering if not other.has_ended)
        self._lingering.append(outlet)
        if len(self._lingering) > _MAX_LINGERING:
            self._lingering.popleft().close()


_UNFENCED = frozenset(("hello", "ping"))
"""Ops that are served whatever the bound epoch is; `bind` has a rule of its own."""


def _close_with(request: Request, error: Exception) -> None:
    """Answer what an exception stands for."""
    if isinstance(error, Refusal):
        request.refuse(error)
    elif isinstance(error, frames.FrameError):
        raise error
    else:
        request.fail("internal", f"{type(error).__name__}: {error}")


def _depart(settings: Settings, berth: child.Berth, program: Callable[[], None]) -> None:
    child.become(settings, berth)
    program()
