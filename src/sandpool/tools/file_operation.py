"""`file_operation`: create, read, write, delete and list files."""

from __future__ import annotations

import ast
import base64
import binascii
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import anyio

from sandpool.errors import FileFailed, FileTooLarge, InvalidToolArgument, Unsupported
from sandpool.models import (
    DEFAULT_MAX_OUTPUT,
    DirEntry,
    ExecutionStatus,
    FileOperationConfig,
    ToolResult,
)
from sandpool.service import Sandbox
from sandpool.tools.builtin import BuiltIn
from sandpool.tools.factory import register_tool
from sandpool.tools.paths import PathPolicy
from sandpool.tools.tool import timeout_text

OPERATIONS = ("create", "read", "write", "delete", "list", "exists")

_WITH_EXTENSION = frozenset({"create", "read", "write", "delete"})

# The name of the thing to delete is not followed: a link is deleted, not what it points to.
_RESOLVE = """\
import os, posixpath, sys
cwd = os.getcwd()
path = posixpath.join(cwd, sys.argv[2])
parent, name = posixpath.split(path.rstrip("/"))
if sys.argv[1] == "delete" and name not in ("", ".", ".."):
    found = [posixpath.join(posixpath.realpath(parent), name)]
else:
    found = [posixpath.realpath(path)]
found += [posixpath.realpath(posixpath.join(cwd, root)) for root in sys.argv[3:]]
print(ascii(found))
"""


class _RefusedError(Exception):
    """The policy or a limit says no; the message says why."""


@register_tool("file_operation")
class FileOperation(BuiltIn[FileOperationConfig]):
    """Works on the files of the sandbox."""

    default_description = "Create, read, write, delete, list or look for files"
    config_class = FileOperationConfig
    properties: ClassVar[Mapping[str, Any]] = {
        "operation": {
            "type": "string",
            "enum": list(OPERATIONS),
            "description": "What to do",
        },
        "file_path": {"type": "string", "description": "Path of the file or directory"},
        "content": {"type": "string", "description": "What to write"},
        "encoding": {
            "type": "string",
            "description": "Encoding of the text, or base64 for bytes",
            "default": "utf-8",
        },
    }
    required = ("operation", "file_path")
    time_argument = None

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `FileOperationConfig` as settings."""
        super().__init__(**settings)
        config = self.config
        self._policy = PathPolicy(
            allowed=None if config.allowed_paths is None else tuple(config.allowed_paths),
            blocked=tuple(config.blocked_paths),
            extensions=(
                None if config.allowed_extensions is None else tuple(config.allowed_extensions)
            ),
        )

    async def execute(
        self,
        sandbox_context: Sandbox,
        *,
        operation: str,
        file_path: str,
        content: str | None = None,
        encoding: str = "utf-8",
    ) -> ToolResult:
        """Do one of `OPERATIONS`, within the time limit."""
        if not file_path:
            return self.failure("No file path provided")
        if operation not in OPERATIONS:
            return self.failure(f"Unknown operation: {operation}")
        if operation == "write" and content is None:
            return self.failure("Content is required for write operation")
        self._check_encoding(encoding)
        limit = self.time_limit(sandbox_context, None)
        with anyio.move_on_after(limit):
            try:
                path = await self._checked_path(sandbox_context, operation, file_path)
                return await self._do(
                    sandbox_context, operation, path, file_path, content or "", encoding
                )
            except _RefusedError as error:
                return self.failure(str(error), refused=True)
            except FileTooLarge:
                most = self.config.max_file_size
                return self.failure(f"{file_path} is larger than the limit of {most} bytes")
            except FileFailed as error:
                reason = error.strerror or "the operation failed"
                return self.failure(f"{file_path}: {reason}", errno=error.errno)
        return ToolResult(
            tool_name=self.name, status=ExecutionStatus.TIMEOUT, error=timeout_text(limit)
        )

    async def _do(
        self,
        sandbox: Sandbox,
        operation: str,
        path: str,
        shown: str,
        content: str,
        encoding: str,
    ) -> ToolResult:
        """Do it to `path`, which the caller called `shown`."""
        files = sandbox.files
        if operation == "exists":
            return self.success("exists" if await files.exists(path) else "does not exist")
        if operation == "list":
            text, is_cut = listing(await files.list(path), DEFAULT_MAX_OUTPUT)
            return self.success(text, truncated=is_cut)
        if operation == "delete":
            await files.remove(path, recursive=True)
            return self.success(f"Successfully deleted: {shown}")
        if operation == "read":
            data = await files.read(path, max_size=self.config.max_file_size)
            return self.success(_decode(data, encoding), size=len(data))
        data = _encode(content, encoding)
        if len(data) > self.config.max_file_size:
            raise FileTooLarge(f"{shown} would be too large")
        await files.write(path, data)
        return self.success(f"File written successfully: {shown}", size=len(data))

    async def _checked_path(self, sandbox: Sandbox, operation: str, path: str) -> str:
        """Return the path to work on: resolved in the sandbox where there is a policy."""
        if self._policy.is_open:
            return path
        if "\0" in path:
            raise _RefusedError("A path cannot have a NUL byte in it")
        found, *roots = await self._resolve(sandbox, operation, path, self._policy.roots)
        refusal = self._policy.resolved(tuple(roots)).refusal(
            found,
            checks_extension=operation in _WITH_EXTENSION,
            is_delete=operation == "delete",
        )
        if refusal is not None:
            raise _RefusedError(refusal)
        return found

    async def _resolve(
        self, sandbox: Sandbox, operation: str, path: str, roots: Sequence[str]
    ) -> list[str]:
        """Return where the path and the policy's own paths lead, links followed."""
        try:
            run = await sandbox.run_code(_RESOLVE, argv=[operation, path, *roots])
        except Unsupported as error:
            raise _RefusedError(f"{path} cannot be checked without Python in the image") from error
        if not run.ok or run.truncated:
            raise _RefusedError(f"{path} cannot be checked: {run.stderr.strip()}")
        found = ast.literal_eval(run.stdout)
        if len(found) != 1 + len(roots) or not all(_is_plain(item) for item in found):
            raise _RefusedError(f"{path} cannot be checked")
        return list(found)

    def _check_encoding(self, encoding: str) -> None:
        if encoding == "base64":
            return
        try:
            "a".encode(encoding)
        except (LookupError, ValueError):
            raise InvalidToolArgument(
                f"{self.name}: argument 'encoding': {encoding!r} is not an encoding of text"
            ) from None


def _decode(data: bytes, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(data).decode("ascii")
    try:
        return data.decode(encoding)
    except ValueError as error:
        raise _RefusedError(
            f"The file is not {encoding} text; read it with encoding='base64'"
        ) from error


def _encode(content: str, encoding: str) -> bytes:
    if encoding == "base64":
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise _RefusedError("The content is not base64") from None
    try:
        return content.encode(encoding)
    except ValueError as error:
        raise _RefusedError(f"The content cannot be written as {encoding}") from error


def listing(entries: Sequence[DirEntry], most: int) -> tuple[str, bool]:
    """Return a directory in the style of `ls -la`, and whether it was cut at `most` characters.

    Owners are left out: a sandbox has one user.  Times are UTC.
    """
    width = max((len(str(entry.size)) for entry in entries), default=1)
    lines = [f"total {len(entries)}"]
    length = len(lines[0])
    for entry in entries:
        line = _line(entry, width)
        length += len(line) + 1
        if length > most:
            return "\n".join(lines), True
        lines.append(line)
    return "\n".join(lines), False


_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


def _line(entry: DirEntry, width: int) -> str:
    mode = stat.filemode(_KINDS.get(entry.type, 0) | stat.S_IMODE(entry.mode))
    when = datetime.fromtimestamp(entry.mtime, UTC).strftime("%Y-%m-%d %H:%M")
    target = f" -> {entry.target}" if entry.target is not None else ""
    return f"{mode} {entry.size:>{width}} {when} {entry.name}{target}"


def _is_plain(path: object) -> bool:
    """Whether the sandbox gave a path that can be handed back to it."""
    return (
        isinstance(path, str)
        and path.startswith("/")
        and not any(0xD800 <= ord(character) < 0xE000 for character in path)
    )
