"""`multi_code_executor`: compile and run a program in one of many languages."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import anyio

from sandpool.errors import FileFailed, SandpoolError
from sandpool.ids import new_sandbox_id
from sandpool.models import ExecResult, ToolConfig, ToolResult
from sandpool.service import Sandbox
from sandpool.tools.builtin import BuiltIn
from sandpool.tools.factory import register_tool
from sandpool.tools.languages import LANGUAGES, Language, Step

_CLEANUP_BOUND = 10.0
_PROBE_TIMEOUT = 10.0
_NOT_FOUND = 127

_PROBE = 'for name; do command -v "$name" >/dev/null 2>&1 && echo "$name"; done; true'


class _MissingError(Exception):
    """The sandbox has not got what the language needs; the message says what."""


@register_tool("multi_code_executor")
class MultiCodeExecutor(BuiltIn[ToolConfig]):
    """Runs a program, with the compilers and interpreters that the sandbox has."""

    default_description = "Compile and run a program; languages: " + ", ".join(LANGUAGES)
    properties: ClassVar[Mapping[str, Any]] = {
        "language": {"type": "string", "enum": list(LANGUAGES), "description": "Its language"},
        "code": {"type": "string", "description": "The text of its main file"},
        "files": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Texts of further files by their paths below the program's directory",
        },
        "compile_timeout": {
            "type": "integer",
            "description": "Seconds until the compiler is killed; by default the most there may be",
        },
        "run_timeout": {
            "type": "integer",
            "description": "Seconds until the program is killed",
            "default": 30,
        },
    }
    required = ("language", "code")
    time_argument = "run_timeout"

    async def execute(
        self,
        sandbox_context: Sandbox,
        *,
        language: str,
        code: str,
        files: Mapping[str, str] | None = None,
        compile_timeout: int | None = None,
        run_timeout: int | None = None,
    ) -> ToolResult:
        """Write the files to a new directory, compile, run, and remove the directory."""
        found = LANGUAGES.get(language.lower())
        if found is None:
            return self.failure(f"Unsupported language: {language}")
        if not code.strip():
            return self.failure("Invalid input")
        for name in files or {}:
            if not _is_below(name) or posixpath.normpath(name) == found.main:
                return self.failure(f"File name {name!r} is not allowed")
        limits = (
            self._compile_limit(compile_timeout),
            self.time_limit(sandbox_context, run_timeout),
        )
        directory = f"/tmp/sandpool-{new_sandbox_id()}"  # noqa: S108 - inside the sandbox
        try:
            await _write(sandbox_context, directory, {**(files or {}), found.main: code})
            return await self._run(sandbox_context, found, code, directory, limits)
        except _MissingError as error:
            return self.failure(f"{language}: {error}", language=language)
        except FileFailed as error:
            return self.failure(f"{error.filename}: {error.strerror}", errno=error.errno)
        finally:
            await _remove(sandbox_context, directory)

    async def _run(
        self,
        sandbox: Sandbox,
        language: Language,
        code: str,
        directory: str,
        limits: tuple[int, int],
    ) -> ToolResult:
        compile_limit, run_limit = limits
        compiled: list[ExecResult] = []
        for step in language.compile_steps(code):
            run = await _step(sandbox, language, step, directory, compile_limit)
            compiled.append(run)
            if not run.ok:
                whole = _joined(compiled)
                failure = f"Compilation failed with exit code {run.exit_code}"
                return self.from_run(whole, compile_limit, failure=failure, phase="compile")
        run = await _step(sandbox, language, language.run_step(code), directory, run_limit)
        failure = f"Program failed with exit code {run.exit_code}"
        return self.from_run(_joined([*compiled, run]), run_limit, failure=failure, phase="run")

    def _compile_limit(self, asked: int | None) -> int:
        if asked is None:
            return self.max_timeout
        self.check_timeout("compile_timeout", asked)
        return asked


async def _step(
    sandbox: Sandbox, language: Language, step: Step, directory: str, limit: int
) -> ExecResult:
    """Run one step, by the first program of its choice that there is.

    Which there are is asked only when none was found: asking first would cost every call a process.
    """
    first, *others = step[0].split("|")
    env = dict(language.env)
    run = await sandbox.exec([first, *step[1:]], cwd=directory, env=env, timeout=limit)
    for previous, name in zip([first, *others], others, strict=False):
        if not _says_missing(run, previous):
            return run
        run = await sandbox.exec([name, *step[1:]], cwd=directory, env=env, timeout=limit)
    if run.exit_code == _NOT_FOUND:
        await _need_programs(sandbox, language)
    return run


def _joined(runs: Sequence[ExecResult]) -> ExecResult:
    """Return the last of several runs, with the output and the time of all."""
    return runs[-1].model_copy(
        update={
            "stdout": "".join(run.stdout for run in runs),
            "duration": sum(run.duration for run in runs),
            "truncated": any(run.truncated for run in runs),
        }
    )


def _says_missing(run: ExecResult, name: str) -> bool:
    """Whether the sandbox itself says that there is no such program."""
    is_missing = run.exit_code == _NOT_FOUND and not run.stdout
    return is_missing and run.stderr == f"{name}: command not found\n"


async def _need_programs(sandbox: Sandbox, language: Language) -> None:
    """Raise `_MissingError` unless the sandbox has the programs of a language."""
    names = [name for choice in language.programs for name in choice]
    probe = await sandbox.exec(["sh", "-c", _PROBE, "sh", *names], timeout=_PROBE_TIMEOUT)
    there = set(probe.stdout.split("\n"))
    missing = [choice for choice in language.programs if not there.intersection(choice)]
    if missing:
        wanted = ", ".join(" or ".join(choice) for choice in missing)
        raise _MissingError(f"the sandbox has no {wanted}; use an image that has")


async def _write(sandbox: Sandbox, directory: str, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        await sandbox.files.write(posixpath.join(directory, name), text)


async def _remove(sandbox: Sandbox, directory: str) -> None:
    # Cancel: it can come at any time, and the next call must not find this one's files.
    with anyio.move_on_after(_CLEANUP_BOUND, shield=True):
        try:
            await sandbox.files.remove(directory, recursive=True, missing_ok=True)
        except SandpoolError:
            # A sandbox that is dead or no longer ours needs no cleaning, and the error of the call,
            # if there is one, says more.
            return


def _is_below(name: str) -> bool:
    """Whether a path stays in the directory that it is joined to."""
    parts: Sequence[str] = posixpath.normpath(name).split("/")
    is_plain = bool(name) and "\0" not in name and not name.endswith("/")
    return is_plain and parts[0] not in ("", ".", "..")
