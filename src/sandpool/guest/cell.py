"""A context's own process: runs cells in one namespace, one after the other, as a notebook does.

Of each cell the value of the last expression is shown, unless a semicolon follows it; it is `_`
afterwards, and `Out[n]`.  A cell may `await`: its event loop is kept, but turns only while a cell
awaits.  There is no input: `input()` raises EOFError.  `sys.exit()` ends a cell, not the context.
Output of threads and processes in the background belongs to the cell that runs when it is
written; what they write between cells is lost.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import io
import linecache
import os
import sys
import tokenize
import types
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from . import display, fault, figures, script, streams
from .channel import Channel, Interrupts
from .child import KEPT
from .settings import apply

if TYPE_CHECKING:
    from types import CodeType, TracebackType
    from typing import Coroutine

    from .interpreter import Interpreter

_CO_COROUTINE = 0x80
_FUTURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]
_NOT_CODE = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.DEDENT, tokenize.ENDMARKER)
)


def serve(interpreter: Interpreter, reseed: bool, changes: dict[str, str | None]) -> NoReturn:
    """Run cells until the guest ends this process."""
    env = dict(interpreter.env)
    apply(env, changes)
    # Before any cell can import it: there is no screen.
    env.setdefault("MPLBACKEND", "Agg")
    interpreter.set_environment(env)
    # Its input is not a pipe, as a run's is.
    streams.open_all(interpreter, unbuffered=bool(env.get("PYTHONUNBUFFERED")))
    # A notebook shows a line when it is printed, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    script.begin(interpreter, reseed, [""])
    # As in an interactive interpreter, so that it follows `os.chdir`.
    sys.path[0] = ""
    Session(Channel(KEPT)).run()


class Session:
    """One namespace and what cells leave behind in it."""

    def __init__(self, channel: Channel) -> None:
        """Make a new `__main__`."""
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        self._namespace: dict[str, Any] = main.__dict__
        self._inputs = [""]
        self._outputs: dict[int, object] = {}
        self._namespace.update(In=self._inputs, Out=self._outputs, _="", __="", ___="")
        self._last: object = ""
        self._channel = channel
        self._interrupts = Interrupts()
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        """For the compiler; `from __future__` in one cell holds for all later ones."""
        self._loop: Any = None
        builtins.display = self.display  # type: ignore[attr-defined]
        figures.show_through(self._show)

    def run(self) -> NoReturn:
        """Run cells for ever."""
        while True:
            number, request = self._channel.receive()
            self._interrupts.begin()
            self._channel.event({"begun": True})
            report = self._report(number, request["path"])
            self._channel.respond(report)

    def display(self, *values: object) -> None:
        """Show values; the builtin `display`."""
        for value in values:
            self._show(self._bundle(value))

    def _show(self, bundle: dict[str, str], is_result: bool = False) -> None:
        _flush()
        self._channel.event({"display": bundle, "result": is_result})
        self._interrupts.check()

    def _bundle(self, value: object) -> dict[str, str]:
        picture = figures.picture(value)
        return display.bundle(value) if picture is None else picture

    def _report(self, number: int, path: str) -> dict[str, Any]:
        """Run a cell to its end and return what became of it."""
        attempt = self._interrupts.attempt
        failure = attempt(partial(self._run, number, path))
        if self._channel.is_abandoned:
            _leave(failure)
        second = attempt(figures.flush)
        if failure is None:
            failure = second
        attempt(_flush)
        if failure is None:
            return {"status": "ok"}
        error: dict[str, str] = {}
        # Describing it calls the exception's own methods, and they can be stuck, too.
        if attempt(lambda: error.update(fault.describe(failure))) is not None:
            error = fault.name_only(failure)
        return {"status": "error", "error": error}

    def _run(self, number: int, path: str) -> None:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogatepass")
        name = fault.NAME % number
        # No time stamp, which keeps `linecache.checkcache` from looking for a file.
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        self._inputs.append(text)
        body, last = self._parse(text, name)
        self._evaluate(self._compile(body, name, "exec"))
        if last is None:
            return
        value = self._evaluate(self._compile(last, name, "eval"))
        if value is not None and not _is_muted(text):
            self._remember(number, value)
            self._show(self._bundle(value), is_result=True)

    def _parse(self, text: str, name: str) -> tuple[ast.Module, ast.Expression | None]:
        """Return the statements, and the expression at the end if there is one."""
        tree: Any = compile(text, name, "exec", self._flags | ast.PyCF_ONLY_AST, True)
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            return tree, ast.Expression(tree.body.pop().value)
        return tree, None

    def _compile(self, tree: ast.Module | ast.Expression, name: str, mode: str) -> CodeType:
        code: CodeType = compile(tree, name, mode, self._flags, True)
        for flag in _FUTURES:
            self._flags |= code.co_flags & flag
        return code

    def _evaluate(self, code: CodeType) -> Any:
        value = eval(code, self._namespace)  # noqa: S307 (this is what the sandbox is for)
        if code.co_flags & _CO_COROUTINE:
            value = self._wait(value)
        return value

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Turn the context's event loop until `coroutine` has ended."""
        # Most contexts never need it, and it is a large import.
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit) as leaving:
            if task.done():
                raise
            raise leaving.with_traceback(self._cancel(task)) from None

    def _cancel(self, task: Any) -> TracebackType | None:
        """Cancel what a cell awaits; return where it was, of which the event loop knows nothing."""
        task.cancel()
        try:
            self._loop.run_until_complete(task)
        except BaseException as error:  # noqa: BLE001 (a tenant's, and on its way out already)
            return error.__traceback__
        return None

    def _remember(self, number: int, value: object) -> None:
        """Move `_` on, unless the tenant uses that name for something of its own."""
        self._outputs[number] = value
        names = self._namespace
        if names.get("_") is self._last:
            names["___"], names["__"], names["_"] = names.get("__"), self._last, value
            self._last = value


def _is_muted(text: str) -> bool:
    """Whether the last thing in a cell but comments is a semicolon."""
    if ";" not in text:
        return False
    last = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _NOT_CODE:
                last = token.string
    except (tokenize.TokenError, SyntaxError):
        # The compiler took it; where the two disagree, showing a value is the lesser harm.
        return False
    return last == ";"


def _flush() -> None:
    """Write out what is buffered; a stream that the tenant has closed or broken has nothing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, PERF203, S110 (a tenant's stream)
            pass


def _leave(failure: BaseException | None) -> NoReturn:
    """End a process that the cell has forked, as the end of a script would."""
    status = 0
    if isinstance(failure, SystemExit):
        code = failure.code
        status = code & 0xFF if isinstance(code, int) else int(code is not None)
    elif failure is not None:
        status = 1
        try:
            sys.stderr.write(fault.describe(failure)["traceback"])
        except Exception:  # noqa: BLE001, S110 (a tenant's stream)
            pass
    _flush()
    os._exit(status)
