"""A few commands for `FakeBox`, and a shell that joins them.

`echo cat true false sleep pwd env exit`, `python3 -c CODE | FILE | -m http.server PORT`, and
`sh -c` or `bash -c` with `&&`, `||`, `;`, quotes, `$NAME`, `> FILE`, `>> FILE` and `>&2`.
"""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Awaitable, Callable

import anyio

from sandpool.errors import FileFailed
from sandpool.models import Stream
from sandpool.testing.interpreter import Namespace
from sandpool.testing.machine import Exit, Machine

_TOKEN = re.compile(
    r"""(?P<operator>&&|\|\||>>|1?>&2|>|;|\n)|(?P<space>[ \t]+)"""
    r"""|'(?P<literal>[^']*)'|"(?P<quoted>[^"]*)"|(?P<plain>[^\s'";&|>]+)"""
)
_NOT_FOUND = 127


async def run_command(argv: tuple[str, ...], machine: Machine) -> int:
    """Run one command line to its end and return its exit code."""
    program = posixpath.basename(argv[0])
    command = _COMMANDS.get(program)
    if command is None:
        machine.emit("stderr", f"{argv[0]}: command not found\n".encode())
        return _NOT_FOUND
    try:
        return await command(list(argv[1:]), machine)
    except FileFailed as error:
        machine.emit("stderr", f"{program}: {error.filename}: {error.strerror}\n".encode())
        return 1


async def _echo(arguments: list[str], machine: Machine) -> int:
    end = "\n"
    if arguments[:1] == ["-n"]:
        arguments, end = arguments[1:], ""
    machine.emit("stdout", (" ".join(arguments) + end).encode("utf-8", "surrogateescape"))
    return 0


async def _cat(arguments: list[str], machine: Machine) -> int:
    for name in arguments or ["-"]:
        if name == "-":
            while data := await machine.stdin.chunk():
                machine.emit("stdout", data)
        else:
            machine.emit("stdout", machine.files.read(machine.files.resolve(name, machine.cwd)))
    return 0


async def _sleep(arguments: list[str], machine: Machine) -> int:
    machine.owe(float(arguments[0]))
    await machine.settle()
    return 0


async def _pwd(_arguments: list[str], machine: Machine) -> int:
    return await _echo([machine.cwd], machine)


async def _env(_arguments: list[str], machine: Machine) -> int:
    for name, value in sorted(machine.env.items()):
        await _echo([f"{name}={value}"], machine)
    return 0


async def _true(_arguments: list[str], _machine: Machine) -> int:
    return 0


async def _false(_arguments: list[str], _machine: Machine) -> int:
    return 1


async def _python(arguments: list[str], machine: Machine) -> int:
    while arguments and arguments[0] in ("-I", "-S", "-u", "-E", "-s", "-B"):
        arguments = arguments[1:]
    if arguments[:2] == ["-m", "http.server"]:
        return await _serve(int(arguments[2]), machine)
    if arguments[:1] == ["-c"]:
        code, rest = arguments[1], arguments[2:]
    elif arguments:
        code = machine.files.read(machine.files.resolve(arguments[0], machine.cwd)).decode()
        rest = arguments[1:]
    else:
        code, rest = (await machine.stdin.rest()).decode(), []
    outcome = await Namespace().run(code, machine.child(argv=tuple(rest)))
    if outcome.signal is not None:
        raise Exit(outcome.exit_code, outcome.signal)
    return outcome.exit_code


async def _serve(port: int, machine: Machine) -> int:
    try:
        machine.ports.listen(port)
    except OSError as error:
        machine.emit("stderr", f"OSError: {error}\n".encode())
        return 1
    try:
        machine.emit("stdout", f"Serving HTTP on port {port}\n".encode())
        await anyio.sleep_forever()
    finally:
        machine.ports.close(port)
    return 0


async def _shell(arguments: list[str], machine: Machine) -> int:
    if arguments[:1] != ["-c"]:
        raise NotImplementedError("the fake shell runs only `sh -c`")
    return await run_script(arguments[1], machine)


_COMMANDS: dict[str, Callable[[list[str], Machine], Awaitable[int]]] = {
    "echo": _echo,
    "cat": _cat,
    "sleep": _sleep,
    "pwd": _pwd,
    "env": _env,
    "true": _true,
    "false": _false,
    "python": _python,
    "python3": _python,
    "sh": _shell,
    "bash": _shell,
}


async def run_script(script: str, machine: Machine) -> int:
    """Run a script of simple commands and return its exit code."""
    words: list[str] = []
    redirect: list[str] = []
    code = 0
    skip = False
    for token in [*_tokens(script, machine), _Operator(";")]:
        if not isinstance(token, _Operator):
            (redirect if redirect and len(redirect) == 1 else words).append(token)
        elif token in (">", ">>"):
            redirect = [token]
        elif token in (">&2", "1>&2"):
            redirect = [token, ""]
        else:
            if words and not skip:
                if words[0] == "exit":
                    return int(words[1]) if len(words) > 1 else code
                code = await _simple(words, redirect, machine)
            skip = (token == "&&" and code != 0) or (token == "||" and code == 0)  # noqa: S105
            words, redirect = [], []
    return code


async def _simple(words: list[str], redirect: list[str], machine: Machine) -> int:
    if not redirect:
        return await run_command(tuple(words), machine)
    kept = bytearray()

    def emit(stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            machine.emit(stream, data)
        elif redirect[1]:
            kept.extend(data)
        else:
            machine.emit("stderr", data)

    code = await run_command(tuple(words), machine.child(emit=emit))
    if redirect[1]:
        path = machine.files.resolve(redirect[1], machine.cwd)
        try:
            machine.files.write(
                path, bytes(kept), now=machine.clock.now(), append=redirect[0] == ">>"
            )
        except FileFailed as error:
            machine.emit("stderr", f"sh: {error.filename}: {error.strerror}\n".encode())
            return 2 if error.errno != errno.ENOSPC else 1
    return code


class _Operator(str):
    __slots__ = ()


def _tokens(script: str, machine: Machine) -> list[str]:
    """Cut a script into words and operators, taking quotes away and putting variables in."""
    tokens: list[str] = []
    in_word = False
    for match in _TOKEN.finditer(script):
        kind, text = match.lastgroup, match.group(match.lastgroup or 0)
        if kind == "operator":
            tokens.append(_Operator(";" if text == "\n" else text))
        elif kind != "space":
            piece = text if kind == "literal" else _expand(text, machine)
            if in_word:
                tokens[-1] += piece
            else:
                tokens.append(piece)
        in_word = kind not in ("operator", "space")
    return tokens


def _expand(text: str, machine: Machine) -> str:
    first, *rest = text.split("$")
    parts = [first]
    for piece in rest:
        braced = piece.startswith("{")
        name_end = 1 if braced else 0
        while name_end < len(piece) and (piece[name_end].isalnum() or piece[name_end] == "_"):
            name_end += 1
        name = piece[1:name_end] if braced else piece[:name_end]
        tail = piece[name_end + 1 :] if braced else piece[name_end:]
        parts += [machine.env.get(name, "") if name else "$", tail]
    return "".join(parts)
