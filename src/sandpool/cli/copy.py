"""`sandpool sandbox cp`: files and directories between this machine and a sandbox.

What comes out of a sandbox was made by whoever ran in it: its names are checked before anything of
that name is made here, links and devices are left out, and no link here is followed.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio

from sandpool.cli import exits
from sandpool.cli.connection import find_sandbox
from sandpool.cli.output import printable
from sandpool.client import HttpSandboxManager
from sandpool.errors import InvalidSpec
from sandpool.models import DirEntry
from sandpool.service import Sandbox

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a copy: `SANDBOX:PATH`, a path on this machine, or `-` for our own streams."""

    sandbox_id: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read it as it is typed; `./a:b` is a path on this machine."""
        before, colon, path = text.partition(":")
        if not colon or "/" in before or before in ("", ".", ".."):
            return cls(None, text)
        return cls(before, path or ".")


async def copy(manager: HttpSandboxManager, source: Place, target: Place) -> int:
    """Copy a file, or a directory with what is in it; `InvalidSpec` for what cannot be meant."""
    if source.sandbox_id is None and target.sandbox_id is not None:
        await _put(manager, target.sandbox_id, source.path, target.path)
    elif source.sandbox_id is not None and target.sandbox_id is None:
        sandbox = await find_sandbox(manager, source.sandbox_id)
        await _get(sandbox, source.path, target.path)
    else:
        raise InvalidSpec("one of the two is SANDBOX:PATH, and the other is on this machine")
    return exits.OK


async def _put(manager: HttpSandboxManager, sandbox_id: str, source: str, target: str) -> None:
    sandbox = await find_sandbox(manager, sandbox_id)
    if source != "-" and await anyio.Path(source).is_dir():
        await manager.put_dir(sandbox_id, source, target)
        return
    descriptor = sys.stdin.fileno() if source == "-" else _open_source(source)
    is_executable = source != "-" and bool(os.fstat(descriptor).st_mode & stat.S_IXUSR)
    if source != "-" and (target.endswith("/") or await _is_directory(sandbox, target)):
        target = f"{target.rstrip('/')}/{Path(source).name}"
    try:
        await sandbox.files.write(
            target, _pieces(descriptor), mode=0o755 if is_executable else None
        )
    finally:
        if source != "-":
            os.close(descriptor)


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    while data := await anyio.to_thread.run_sync(
        os.read, descriptor, _CHUNK, abandon_on_cancel=True
    ):
        yield data


async def _get(sandbox: Sandbox, source: str, target: str) -> None:
    if target == "-":
        async for piece in sandbox.files.stream(source):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    entry = await sandbox.files.stat(source)
    place = Path(target)
    if entry.type == "file":
        if target.endswith("/") or await anyio.Path(target).is_dir():
            place /= _checked(source.rstrip("/").rpartition("/")[2])
        await _get_file(sandbox, source, place, entry)
    elif entry.type == "directory":
        await _get_directory(sandbox, source, place)
    else:
        raise InvalidSpec(f"{source} is neither a file nor a directory")


async def _get_directory(sandbox: Sandbox, source: str, target: Path) -> None:
    # No recursion: how deep it goes is not for us to say.
    pending = [(source.rstrip("/"), target)]
    while pending:
        source, target = pending.pop()
        _make_directory(target)
        for entry in await sandbox.files.list(source or "/"):
            path, place = f"{source}/{_checked(entry.name)}", target / entry.name
            if entry.type == "directory":
                pending.append((path, place))
            elif entry.type == "file":
                await _get_file(sandbox, path, place, entry)
            else:
                print(f"sandpool: left out {printable(path)}, a {entry.type}", file=sys.stderr)


async def _get_file(sandbox: Sandbox, source: str, target: Path, entry: DirEntry) -> None:
    # Whole or not at all: what is there is replaced once the last byte has come.
    partial = target.with_name(f".sandpool-{secrets.token_hex(8)}.part")
    mode = 0o777 if entry.mode & stat.S_IXUSR else 0o666
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(partial, flags, mode)
    except OSError as error:
        raise InvalidSpec(f"{target} cannot be written: {error.strerror}") from error
    try:
        async with await anyio.open_file(descriptor, "wb") as out:
            async for piece in sandbox.files.stream(source):
                await out.write(piece)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _make_directory(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InvalidSpec(f"{path} is there, and no directory")
    path.mkdir(parents=True, exist_ok=True)


def _checked(name: str) -> str:
    """Return what a sandbox says is the name of a file, if it can be one."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidSpec(f"the sandbox has a file of the name {name!r}, which no file here can be")
    return name


def _open_source(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}") from error


async def _is_directory(sandbox: Sandbox, path: str) -> bool:
    return await sandbox.files.exists(path) and (await sandbox.files.stat(path)).type == "directory"
