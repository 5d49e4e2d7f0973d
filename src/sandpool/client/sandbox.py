"""`BlockingSandbox`: one sandbox, for callers that block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from sandpool.client.backing import Backing, Held
from sandpool.client.records import SandboxRecord, Status
from sandpool.errors import InvalidSpec
from sandpool.models import DEFAULT_MAX_OUTPUT, DirEntry, ExecResult
from sandpool.sync import Portal


class BlockingSandbox:
    """A sandbox that `SandboxClient` has created.  Leaving its `with` block terminates it.

    Every method raises `LeaseOver` once the sandbox was terminated, `SandboxDied` once it has ended
    by itself, and `ManagerNotStarted` once its client is closed.  A call that is interrupted kills
    what it has started.
    """

    def __init__(self, portal: Portal[Backing], held: Held) -> None:
        """Call through this portal; made by `SandboxClient` only."""
        self._portal = portal
        self._sandbox = held.sandbox
        self._sandbox_id = held.sandbox.id
        self._pool_id = held.pool_id

    def __repr__(self) -> str:
        return f"<BlockingSandbox {self._sandbox_id}>"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Terminate it."""
        self.terminate()

    @property
    def sandbox_id(self) -> str:
        """Its id."""
        return self._sandbox_id

    @property
    def pool_id(self) -> str | None:
        """The pool that it was created from; None: it was made by itself."""
        return self._pool_id

    @property
    def status(self) -> Status:
        """Its status at this moment."""
        return self._portal.call(lambda here: here.status(self._sandbox_id))

    def info(self) -> SandboxRecord:
        """Describe it; `SandboxNotFound` once it is gone."""
        return self._portal.call(lambda here: here.get(self._sandbox_id))

    def terminate(self) -> None:
        """End it with everything in it; no effect on one that has ended."""
        if not self._portal.is_closed:
            self._portal.call(lambda here: here.delete(self._sandbox_id, missing_ok=True))

    # Running things.

    def run(
        self,
        command: str,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        working_dir: str | None = None,
        timeout: float | None = None,
        *,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        max_output: int | None = DEFAULT_MAX_OUTPUT,
    ) -> ExecResult:
        """Run a program to its end, never through a shell.

        Args:
            command: The program, found along its `PATH`.
            args: Its arguments.
            env: Variables that it has besides its sandbox's; None takes one away.
            working_dir: The directory that it starts in.
            timeout: Seconds after which it is killed with all that it has started.
            cwd: `working_dir` by its other name.
            stdin: What it reads.
            max_output: Bytes of stdout and of stderr that are kept, each; None keeps all.

        Raises:
            InvalidSpec: `args` is one string, or both names of the directory are given.
        """
        if isinstance(args, str):
            raise InvalidSpec("args is a sequence of strings, not one string")
        if working_dir is not None and cwd is not None:
            raise InvalidSpec("working_dir and cwd are the same thing; give one of them")
        return self._portal.call(
            lambda _: self._sandbox.exec(
                [command, *args],
                env=env,
                cwd=cwd if working_dir is None else working_dir,
                stdin=stdin,
                timeout=timeout,
                max_output=max_output,
            )
        )

    def run_code(
        self,
        code: str,
        *,
        argv: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: bytes | str = b"",
        timeout: float | None = None,
        max_output: int | None = DEFAULT_MAX_OUTPUT,
    ) -> ExecResult:
        """Run Python code as `python3 script.py` would, in a fork of the warm interpreter.

        `argv` is `sys.argv[1:]`, `timeout` is in seconds, and `max_output` bounds stdout and
        stderr, in bytes each.
        """
        return self._portal.call(
            lambda _: self._sandbox.run_code(
                code,
                argv=argv,
                env=env,
                cwd=cwd,
                stdin=stdin,
                timeout=timeout,
                max_output=max_output,
            )
        )

    def url(self, port: int, *, private: bool = False) -> str:
        """Return an address of a port, for any HTTP or WebSocket client, until the sandbox ends.

        A `private` one carries a token, and nothing opens the port without.
        """
        return self._portal.call(lambda _: self._sandbox.url(port, private=private))

    # Files.  Relative paths start at the sandbox's working directory.

    def read_file(self, path: str, *, max_size: int | None = None) -> bytes:
        """Return a file's bytes; `FileMissing`, `FileFailed`, `FileTooLarge` past `max_size`."""

        async def read(_: Backing) -> bytes:
            return await self._sandbox.files.read(path, max_size=max_size)

        return self._portal.call(read)

    def write_file(self, path: str, content: bytes | str, *, mode: int | None = None) -> int:
        """Write a file, making its parents, whole or not at all; return the bytes written."""

        async def write(_: Backing) -> int:
            return await self._sandbox.files.write(path, content, mode=mode)

        return self._portal.call(write)

    def delete_file(self, path: str) -> None:
        """Remove a file or a link; `FileMissing`, `FileFailed`."""

        async def remove(_: Backing) -> None:
            await self._sandbox.files.remove(path)

        self._portal.call(remove)

    def list_directory(self, path: str = ".") -> list[DirEntry]:
        """List a directory, sorted by path; `FileMissing`, `FileFailed`."""

        async def entries(_: Backing) -> list[DirEntry]:
            return await self._sandbox.files.list(path)

        return self._portal.call(entries)
