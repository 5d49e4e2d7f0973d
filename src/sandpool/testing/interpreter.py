"""Runs simple Python inside this process, on a `Machine`.

Not a sandbox: it is for tests whose code is trusted.  `sys`, `os` and `time` are small stand-ins
and `open` reads and writes the machine's files; everything else that is imported is real.  Sleeping
at module level, loops included, takes the machine's time; a function that sleeps is charged at the
next statement at module level.
"""

from __future__ import annotations

import ast
import builtins
import io
import posixpath
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, cast

from sandpool.models import CellError, Stream
from sandpool.testing.machine import Exit, Machine

_FILE = "<string>"
_SETTLE = "__settle__"


@dataclass(slots=True)
class Outcome:
    """How one piece of code ended."""

    exit_code: int = 0
    signal: int | None = None
    error: CellError | None = None
    value: str | None = None
    """`repr` of the last expression, where it was asked for."""


@dataclass(slots=True)
class Namespace:
    """The globals of one interpreter; a context keeps them from cell to cell."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])

    async def run(self, code: str, machine: Machine, *, value: bool = False) -> Outcome:
        """Run `code` to its end; with `value`, its last expression becomes the outcome's."""
        out = _Output(machine, "stdout")
        err = _Output(machine, "stderr")
        self.values.update(_globals(machine, out, err))
        try:
            tree = ast.parse(code, _FILE)
            last = _cut_last_expression(tree) if value else None
            await self._execute(_with_settling(tree), machine)
            outcome = Outcome()
            if last is not None:
                result = eval(last, self.values)  # noqa: S307 - trusted by definition
                if result is not None:
                    outcome = Outcome(value=repr(result))
            await machine.settle()
        except Exit as exit_:
            return Outcome(exit_.code, exit_.signal)
        except SystemExit as exit_:
            return Outcome(_exit_code(exit_.code, err))
        except Exception as error:  # noqa: BLE001 - whatever the program raised is its own affair
            text = _traceback(error)
            if not value:
                err.write(text)
            return Outcome(
                1, error=CellError(name=type(error).__name__, value=str(error), traceback=text)
            )
        return outcome

    async def _execute(self, tree: ast.Module, machine: Machine) -> None:
        compiled: CodeType = compile(tree, _FILE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        self.values[_SETTLE] = machine.settle
        running = eval(compiled, self.values)  # noqa: S307 - trusted by definition
        if running is not None:
            await running


def _with_settling(tree: ast.Module) -> ast.Module:
    """Let time pass after every statement at module level, and in every turn of a loop there."""
    first = 0
    while first < len(tree.body) and _must_stay_first(tree.body[first], first):
        first += 1
    head, tree.body = tree.body[:first], tree.body[first:]
    _settle_in(tree)
    tree.body[:0] = head
    return ast.fix_missing_locations(tree)


def _must_stay_first(statement: ast.stmt, index: int) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return (
        index == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _settle_in(node: ast.AST) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return
    for _, value in ast.iter_fields(node):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            body = cast("list[ast.stmt]", value)
            body[:] = list(_interleaved(body))
        for child in cast("list[object]", value) if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.expr):
                _settle_in(child)


def _interleaved(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        call = ast.Call(func=ast.Name(id=_SETTLE, ctx=ast.Load()), args=[], keywords=[])
        yield ast.copy_location(ast.Expr(value=ast.Await(value=call)), statement)


def _cut_last_expression(tree: ast.Module) -> CodeType | None:
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return None
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    return compile(ast.Expression(last.value), _FILE, "eval")


def _exit_code(code: object, err: _Output) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    err.write(f"{code}\n")
    return 1


def _traceback(error: Exception) -> str:
    summary = traceback.TracebackException.from_exception(error)
    own = [frame for frame in summary.stack if frame.filename == _FILE]
    summary.stack = traceback.StackSummary.from_list(own)
    return "".join(summary.format())


class _Output(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a program."""

    def __init__(self, machine: Machine, stream: Stream) -> None:
        self._machine = machine
        self._stream: Stream = stream
        self.buffer = _RawOutput(machine, stream)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        return "utf-8"

    def write(self, text: str) -> int:
        self._machine.emit(self._stream, text.encode("utf-8", "surrogateescape"))
        return len(text)

    def writable(self) -> bool:
        return True


class _RawOutput(io.RawIOBase):
    def __init__(self, machine: Machine, stream: Stream) -> None:
        self._machine = machine
        self._stream: Stream = stream

    def write(self, data: Any) -> int:
        self._machine.emit(self._stream, bytes(data))
        return len(data)

    def writable(self) -> bool:
        return True


class _OpenFile(io.BytesIO):
    """A file of the machine's, written back when it is closed."""

    def __init__(self, machine: Machine, path: str, mode: str) -> None:
        old = b"" if "w" in mode else self._existing(machine, path, mode)
        super().__init__(old)
        if "a" in mode:
            self.seek(0, io.SEEK_END)
        self._writes = "r" not in mode or "+" in mode
        self._machine = machine
        self._path = path

    @staticmethod
    def _existing(machine: Machine, path: str, mode: str) -> bytes:
        if "a" in mode and not machine.files.exists(path):
            return b""
        return machine.files.read(path)

    def close(self) -> None:
        if not self.closed and self._writes:
            now = self._machine.clock.now()
            self._machine.files.write(self._path, self.getvalue(), now=now)
        super().close()


def _globals(machine: Machine, out: _Output, err: _Output) -> dict[str, Any]:
    stdin = io.TextIOWrapper(io.BytesIO(machine.stdin.take()), "utf-8")
    stand_ins = {
        "sys": _sys(machine, out, err, stdin),
        "os": _os(machine),
        "time": _time(machine),
    }

    def import_(name: str, *rest: Any) -> Any:
        return stand_ins[name] if name in stand_ins else builtins.__import__(name, *rest)

    def print_(
        *values: object, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False
    ) -> None:
        (out if file is None else file).write(sep.join(map(str, values)) + end)

    def open_(path: str, mode: str = "r", **_: object) -> Any:
        opened = _OpenFile(machine, machine.files.resolve(path, machine.cwd), mode)
        return opened if "b" in mode else io.TextIOWrapper(opened, "utf-8", write_through=True)

    def input_(prompt: str = "") -> str:
        out.write(prompt)
        line = stdin.readline()
        if not line:
            raise EOFError("EOF when reading a line")
        return line.rstrip("\n")

    own = {**vars(builtins), "__import__": import_, "print": print_, "open": open_, "input": input_}
    return {"__name__": "__main__", "__builtins__": own}


def _module(name: str, **values: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(values)
    return module


def _sys(machine: Machine, out: _Output, err: _Output, stdin: io.TextIOWrapper) -> ModuleType:
    return _module(
        "sys",
        argv=["-c", *machine.argv],
        stdin=stdin,
        stdout=out,
        stderr=err,
        exit=sys.exit,
        version_info=sys.version_info,
        version=sys.version,
        modules=sys.modules,
        platform=sys.platform,
    )


def _time(machine: Machine) -> ModuleType:
    now = machine.clock.now
    return _module("time", sleep=machine.owe, monotonic=now, perf_counter=now, time=now)


def _os(machine: Machine) -> ModuleType:
    files = machine.files

    def resolve(path: str) -> str:
        return files.resolve(path, machine.cwd)

    def exists(path: str) -> bool:
        return files.exists(resolve(path))

    def is_dir(path: str) -> bool:
        return files.is_dir(resolve(path))

    def listdir(path: str = ".") -> list[str]:
        return [entry.name for entry in files.list(resolve(path))]

    def remove(path: str) -> None:
        files.remove(resolve(path))

    def exit_now(code: int) -> None:
        raise Exit(code & 0xFF)

    def kill(pid: int, number: int) -> None:
        if pid != machine.pid:
            raise ProcessLookupError(3, "No such process")
        raise Exit(128 + number, number)

    path = _module(
        "os.path",
        exists=exists,
        isdir=is_dir,
        join=posixpath.join,
        basename=posixpath.basename,
        dirname=posixpath.dirname,
    )
    return _module(
        "os",
        environ=machine.env,
        getcwd=lambda: machine.cwd,
        getpid=lambda: machine.pid,
        listdir=listdir,
        remove=remove,
        _exit=exit_now,
        kill=kill,
        path=path,
    )
