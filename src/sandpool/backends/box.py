"""`GuestBox`: the `Box` that every backend with our guest gives out.

It translates calls into requests to the guest and knows no namespaces and no containers: how a
sandbox ends, what it died of and which limits hold it is its keeper's business.
"""

from __future__ import annotations

import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, Literal, Protocol, cast

import anyio
import anyio.lowlevel
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sandpool.backends.base import Binding, BoxSpec, Limits, RunOptions
from sandpool.backends.connection import Exchange, GuestConnection
from sandpool.backends.run import CANCEL_GRACE, Bound, ExitReport, Output, Relay, Run, parse
from sandpool.errors import (
    FileTooLarge,
    GuestError,
    ResetFailed,
    SandboxDied,
    SandpoolError,
    Unsupported,
)
from sandpool.guest import frames
from sandpool.models import CellError, ContextResult, DirEntry, ExecResult, Stream

_INLINE_CODE = 64 * 1024
_TIMEOUT_GRACE = 10.0
"""Seconds past a run's own timeout after which a guest that has not answered is given up."""
MAX_ENTRIES = 100_000
"""Entries of one listing, at most."""

_MAX_LISTING = 64 * 1024 * 1024
_MAX_LINE = 256 * 1024
_AT_ONCE = 250
_PING_TIMEOUT = 5.0
_RESET_TIMEOUT = 8.0

_Listing = TypeAdapter(list[DirEntry])


class Keeper(Protocol):
    """What a backend knows of one of its boxes."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Facts for people, without secrets."""
        ...

    def was_oom_killed(self) -> bool:
        """Whether the kernel has killed for memory since the last question."""
        ...

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        """Return the rlimits that belong to `limits`; they are the guest's to set."""
        ...

    async def set_limits(self, limits: Limits) -> None:
        """Hold the box to what else there is in them; see `base.Box.set_limits`."""
        ...

    async def end(self) -> None:
        """Kill what is left, and return once nothing is; `DestroyFailed` past a bound."""
        ...


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    head: str = Field(max_length=frames.LONGEST_HEAD)


class _Opened(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    context: str = Field(min_length=1, max_length=64)


class _Contexts(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    contexts: list[_Opened] = Field(max_length=1024)


class _CellReport(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    status: Literal["ok", "error", "timeout", "died"]
    error: CellError | None = None
    count: int = 0
    duration: float = 0.0
    truncated: bool = False


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")
    entry: DirEntry


class _Size(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    size: int = Field(ge=0)


class _Killed(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    killed: int = Field(ge=0)


class GuestBox:
    """One sandbox with our guest in it; implements `base.Box`."""

    def __init__(self, box_id: str, spec: BoxSpec) -> None:
        """Make it; the backend calls `begin` next."""
        self.id = box_id
        self.spec = spec
        self._limits = spec.limits
        """What it is held to."""
        self._connection: GuestConnection
        self._keeper: Keeper
        self._check_empty: Callable[[], None] | None = None
        self._died: SandboxDied | None = None
        self._is_destroyed = False
        self._callbacks: list[Callable[[SandboxDied], None]] = []

    def begin(
        self,
        connection: GuestConnection,
        keeper: Keeper,
        *,
        check_empty: Callable[[], None] | None = None,
    ) -> None:
        """Give it its connection and keeper; called once.

        `check_empty` raises `ResetFailed` if the host sees more of it than a reset has left;
        without it there is no reset.
        """
        self._connection = connection
        self._keeper = keeper
        self._check_empty = check_empty

    @property
    def died(self) -> SandboxDied | None:
        """Why it is dead, or None while it lives."""
        return self._died

    @property
    def info(self) -> Mapping[str, Any]:
        """Facts for people."""
        return self._keeper.info

    @property
    def is_destroyed(self) -> bool:
        """Whether `destroy` has been called, whatever came of it."""
        return self._is_destroyed

    def on_death(self, callback: Callable[[SandboxDied], None]) -> None:
        """Call `callback` once when it dies other than by `destroy`."""
        if self._died is not None:
            callback(self._died)
        else:
            self._callbacks.append(callback)

    def note_death(self, cause: str) -> SandboxDied:
        """Say what it died of, and tell who wants to know; the connection's `on_lost`."""
        if self._died is None:
            if self._is_destroyed:
                self._died = SandboxDied(f"sandbox {self.id} has been destroyed", reason="killed")
            elif self._keeper.was_oom_killed():
                self._died = SandboxDied(
                    f"sandbox {self.id} ran out of memory and was killed", reason="oom"
                )
            else:
                self._died = SandboxDied(f"sandbox {self.id} died: {cause}", reason="killed")
            callbacks, self._callbacks = self._callbacks, []
            if not self._is_destroyed:
                for callback in callbacks:
                    callback(self._died)
        return self._died

    async def ping(self) -> None:
        """Return when the guest has answered; one that does not is given up."""
        exchange = self._connection.open("ping", {})
        with anyio.move_on_after(_PING_TIMEOUT):
            await exchange.result()
            return
        self._connection.fail(f"the guest did not answer within {_PING_TIMEOUT:.0f} s")
        await exchange.result()

    async def bind(self, binding: Binding) -> None:
        """Late binding at hand-over.

        Its answer is not waited for: a guest that did not take the binding refuses all that
        follows, because that carries the new epoch.  So it need not even be sent before that.
        """
        if self._connection.unsent > frames.INITIAL_CREDIT:
            self._connection.fail("the guest did not read what it had been sent")
        fields: dict[str, object] = {}
        if binding.env:
            fields["env"] = dict(binding.env)
        if binding.cwd is not None:
            fields["cwd"] = binding.cwd
        # The guest takes frames in order, so what is sent from here on meets the new epoch.
        self._connection.epoch = binding.epoch
        self._connection.open("bind", fields, is_held=True)

    async def run_code(self, code: str, options: RunOptions) -> ExecResult:
        """Run Python code to its end."""
        return await self._collect(*_code_request(code, options), options)

    async def exec(self, options: RunOptions) -> ExecResult:
        """Run a command to its end."""
        return await self._collect("exec", _run_fields(options), b"", options)

    async def _collect(
        self, op: str, fields: dict[str, object], code: bytes, options: RunOptions
    ) -> ExecResult:
        output = Output(Bound(options.max_output))
        exchange = self._connection.open(op, fields, output.add)
        try:
            if options.timeout is None:
                report = await self._feed(exchange, code, options)
            else:
                report = await self._feed_until(options.timeout, exchange, code, options)
        except anyio.get_cancelled_exc_class():
            await exchange.cancel(CANCEL_GRACE)
            raise
        exit_report = parse(self._connection, ExitReport, report)
        killed = exit_report.signal == signals.SIGKILL and not exit_report.timed_out
        return output.result(exit_report, oom_killed=killed and self._keeper.was_oom_killed())

    async def _feed_until(
        self, timeout: float, exchange: Exchange, code: bytes, options: RunOptions
    ) -> dict[str, Any]:
        with anyio.move_on_after(timeout + _TIMEOUT_GRACE):
            return await self._feed(exchange, code, options)
        self._connection.fail("the guest did not end a run at its timeout")
        return await exchange.result()

    async def _feed(self, exchange: Exchange, code: bytes, options: RunOptions) -> dict[str, Any]:
        if code:
            await exchange.send(code)
            exchange.send_eof()
        if options.stdin:
            await exchange.send(options.stdin)
            exchange.send_eof()
        return await exchange.result()

    async def start_code(self, code: str, options: RunOptions) -> Run:
        """Start Python code."""
        return await self._start(*_code_request(code, options), options)

    async def start(self, options: RunOptions) -> Run:
        """Start a command."""
        return await self._start("exec", _run_fields(options), b"", options)

    async def open_pty(self, options: RunOptions, *, rows: int, cols: int) -> Run:
        """Start a command on a terminal of its own."""
        fields = _run_fields(options)
        fields.pop("stdin", None)
        fields.pop("max_output", None)
        fields |= {"rows": rows, "cols": cols}
        exchange = self._connection.open("pty", fields)
        return Run(
            self._connection,
            exchange,
            max_output=None,
            is_terminal=True,
            was_oom_killed=self._keeper.was_oom_killed,
        )

    async def _start(
        self, op: str, fields: dict[str, object], code: bytes, options: RunOptions
    ) -> Run:
        exchange = self._connection.open(op, fields)
        run = Run(
            self._connection,
            exchange,
            max_output=options.max_output,
            is_terminal=False,
            was_oom_killed=self._keeper.was_oom_killed,
        )
        try:
            if code:
                await exchange.send(code)
                exchange.send_eof()
            if options.stdin:
                await exchange.send(options.stdin)
                exchange.send_eof()
        except BaseException:
            # Cancel: nobody holds the run yet, so nobody else would end it.
            await exchange.cancel(CANCEL_GRACE)
            raise
        return run

    async def dial(self, port: int) -> Relay:
        """Connect to a port on the sandbox's loopback."""
        exchange = self._connection.open("dial", {"port": port})
        try:
            await exchange.receive()
        except BaseException:
            await exchange.cancel(CANCEL_GRACE)
            raise
        return Relay(exchange)

    async def probe(self, port: int, question: str) -> bytes:
        """Ask a server on the sandbox's loopback, and return the head of its answer."""
        value = await self._ask("probe", {"port": port, "question": question})
        return parse(self._connection, _Answer, value).head.encode("latin-1", "replace")

    async def open_context(self, *, env: Mapping[str, str | None], cwd: str | None) -> str:
        """Start a stateful interpreter."""
        fields: dict[str, object] = {"env": dict(env)}
        if cwd is not None:
            fields["cwd"] = cwd
        value = await self._ask("context_open", fields)
        return parse(self._connection, _Opened, value).context

    async def run_in_context(
        self,
        context: str,
        code: str,
        *,
        timeout: float | None,
        max_output: int | None,
        on_output: Callable[[Stream, bytes], Awaitable[None] | None] | None = None,
    ) -> ContextResult:
        """Run one cell."""
        fields: dict[str, object] = {"context": context}
        if timeout is not None:
            fields["timeout"] = timeout
        if max_output is not None:
            fields["max_output"] = max_output
        data = code.encode("utf-8", "surrogatepass")
        if len(data) <= _INLINE_CODE:
            fields["code"], data = code, b""
        exchange = self._connection.open("context_run", fields)
        bound = Bound(max_output)
        output, displays = Output(bound), _Displays()
        try:
            if data:
                await exchange.send(data)
                exchange.send_eof()
            while (frame := await exchange.receive()) is not None:
                kind, payload = frame
                if kind == frames.EVENT:
                    displays.add(frames.decode_json(payload))
                    continue
                output.add(kind, payload)
                if on_output is not None:
                    given = on_output("stdout" if kind == frames.STDOUT else "stderr", payload)
                    if isawaitable(given):
                        await given
            report = parse(self._connection, _CellReport, await exchange.result())
        except BaseException:
            await exchange.cancel(CANCEL_GRACE)
            raise
        return ContextResult(
            status=report.status,
            stdout=output.text("stdout"),
            stderr=output.text("stderr"),
            result=displays.result,
            displays=tuple(displays.bundles),
            error=report.error,
            count=report.count,
            duration=report.duration,
            truncated=report.truncated or bound.is_passed,
        )

    async def close_context(self, context: str) -> None:
        """End a context."""
        await self._ask("context_close", {"context": context})

    async def list_contexts(self) -> list[str]:
        """Return the ids of the living contexts."""
        value = await self._ask("context_list", {})
        found = parse(self._connection, _Contexts, value).contexts
        return [entry.context for entry in found]

    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a regular file."""
        fields: dict[str, object] = {"path": path, "offset": offset}
        if length is not None:
            fields["length"] = length
        exchange = self._connection.open("file_read", fields)
        try:
            while (frame := await exchange.receive()) is not None:
                if frame[0] == frames.DATA:
                    yield frame[1]
        finally:
            await exchange.cancel(CANCEL_GRACE)

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        mode: int | None = None,
        append: bool = False,
        parents: bool = True,
    ) -> int:
        """Write a file, whole or not at all."""
        fields: dict[str, object] = {"path": path, "append": append, "parents": parents}
        if mode is not None:
            fields["mode"] = mode
        exchange = self._connection.open("file_write", fields)
        try:
            if isinstance(data, bytes):
                await exchange.send(data)
            else:
                async for piece in data:
                    await exchange.send(piece)
            exchange.send_eof()
            return parse(self._connection, _Size, await exchange.result()).size
        except BaseException:
            # Cancel: the guest drops the unfinished file and keeps the old one.
            await exchange.cancel(CANCEL_GRACE)
            raise

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        """List a directory, sorted by path."""
        exchange = self._connection.open("file_list", {"path": path, "depth": depth})
        try:
            found = await _listing(exchange, path)
        except ValidationError:
            self._connection.fail("the guest broke the protocol: a malformed listing")
            raise self.note_death("a malformed listing") from None
        except BaseException:
            await exchange.cancel(CANCEL_GRACE)
            raise
        return sorted(found, key=lambda entry: entry.path)

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        """Describe one path."""
        value = await self._ask("file_stat", {"path": path, "follow": follow})
        return parse(self._connection, _Entry, value).entry

    async def make_dir(self, path: str, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a directory."""
        await self._ask("file_mkdir", {"path": path, "parents": parents, "exist_ok": exist_ok})

    async def move_file(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Rename."""
        fields = {"source": source, "target": target, "overwrite": overwrite}
        await self._ask("file_move", fields)

    async def remove_file(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False
    ) -> None:
        """Remove a file, a link or a tree."""
        fields = {"path": path, "recursive": recursive, "missing_ok": missing_ok}
        await self._ask("file_remove", fields)

    async def reset(self) -> None:
        """Make it as it was at its start; who wants to know of its death has to ask again."""
        if self._check_empty is None:
            raise Unsupported("a reset of this sandbox could not be proved; make a new one")
        self._callbacks.clear()
        exchange = self._connection.open("reset", {})
        with anyio.move_on_after(_RESET_TIMEOUT) as scope:
            try:
                await exchange.result()
                self._check_empty()
                self._keeper.was_oom_killed()  # what there was concerns no later run
                await self._ask("warm", {})
            except GuestError as error:
                raise ResetFailed(f"sandbox {self.id} cannot be reset: {error}") from error
        if scope.cancelled_caught:
            raise ResetFailed(f"sandbox {self.id} was not reset within {_RESET_TIMEOUT:.0f} s")

    async def set_limits(self, limits: Limits) -> None:
        """Hold it to other limits from now on."""
        if self._died is not None:
            raise self._died
        await self._change_rlimits(self._limits, limits)
        try:
            await self._keeper.set_limits(limits)
        except SandpoolError:
            await self._change_rlimits(limits, self._limits)
            raise
        self._limits = limits
        # It is not what it was at its start any more.
        self._check_empty = None

    async def _change_rlimits(self, old: Limits, new: Limits) -> None:
        begun, before, after = (
            self._keeper.rlimits(limits) for limits in (self.spec.limits, old, new)
        )
        if before != after:
            # What the guest was told at its start may be more than its host lets it have.
            changed = {name: most for name, most in after.items() if most != begun[name]}
            await self._ask("limit", {"rlimits": changed})

    async def kill_all(self) -> int:
        """Kill every process but the guest."""
        return parse(self._connection, _Killed, await self._ask("kill_all", {})).killed

    async def destroy(self) -> None:
        """End the sandbox and return once none of its processes is left."""
        self._is_destroyed = True
        self._connection.fail("destroyed")
        await self._keeper.end()

    async def _ask(self, op: str, fields: Mapping[str, object]) -> dict[str, Any]:
        exchange = self._connection.open(op, fields)
        try:
            return await exchange.result()
        except anyio.get_cancelled_exc_class():
            await exchange.cancel(CANCEL_GRACE)
            raise


class _Displays:
    """What a cell showed, from EVENT frames; what is not a bundle of texts is left out."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []
        self.result: str | None = None

    def add(self, event: dict[str, Any]) -> None:
        bundle = event.get("display")
        if not isinstance(bundle, dict):
            return
        items = cast("dict[str, object]", bundle).items()  # it came as JSON: its keys are strings
        shown = {key: value for key, value in items if isinstance(value, str)}
        self.bundles.append(shown)
        if event.get("result") is True:
            self.result = shown.get("text/plain")


async def _listing(exchange: Exchange, path: str) -> list[DirEntry]:
    """Take a listing as it comes, a few entries at a time: others are served in between.

    Raises `FileTooLarge`, ValidationError.
    """
    found: list[DirEntry] = []
    size, rest = 0, b""
    while (frame := await exchange.receive()) is not None:
        if frame[0] != frames.DATA:
            continue
        lines = (rest + frame[1]).split(b"\n")
        rest = lines.pop()
        size += len(frame[1])
        if size > _MAX_LISTING or len(rest) > _MAX_LINE or len(found) + len(lines) > MAX_ENTRIES:
            raise FileTooLarge(f"the listing of {path!r} is too large; list less of it")
        for start in range(0, len(lines), _AT_ONCE):
            batch = b",".join(lines[start : start + _AT_ONCE])
            found += _Listing.validate_json(b"[" + batch + b"]")
            await anyio.lowlevel.checkpoint()
    return found + _Listing.validate_json(b"[" + rest + b"]")


def _run_fields(options: RunOptions) -> dict[str, object]:
    fields: dict[str, object] = {}
    if options.argv:
        fields["argv"] = list(options.argv)
    if options.env:
        fields["env"] = dict(options.env)
    if options.cwd is not None:
        fields["cwd"] = options.cwd
    if options.timeout is not None:
        fields["timeout"] = options.timeout
    if options.max_output is not None:
        fields["max_output"] = options.max_output
    if options.stdin != b"":
        fields["stdin"] = True
    return fields


def _code_request(code: str, options: RunOptions) -> tuple[str, dict[str, object], bytes]:
    """Return op, fields and, for code that is too long for them, its bytes."""
    fields = _run_fields(options)
    if len(code) <= _INLINE_CODE // 4:
        fields["code"] = code
        return "run_code", fields, b""
    return "run_code", fields, code.encode("utf-8", "surrogatepass")
