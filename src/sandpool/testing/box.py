"""`FakeBox`: one sandbox of a `FakeBackend`."""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel

from sandpool.backends.base import Binding, BoxSpec, Limits, RunOptions
from sandpool.clock import Clock
from sandpool.errors import (
    DeathReason,
    DestroyFailed,
    InvalidSpec,
    SandboxDied,
    Unsupported,
    file_error,
)
from sandpool.models import ContextResult, DirEntry, ExecResult
from sandpool.service import ByteStream, OnOutput
from sandpool.testing.contexts import FakeContexts
from sandpool.testing.filesystem import MemoryFiles
from sandpool.testing.interpreter import Namespace, Outcome
from sandpool.testing.machine import Exit, Machine
from sandpool.testing.ports import FakePorts, FakeStream
from sandpool.testing.process import FakeProcess, Program, Run
from sandpool.testing.shell import run_command

_CHUNK = 65_536
_BASE_ENV = {"PATH": "/usr/bin:/bin", "HOME": "/sandbox", "LANG": "C.UTF-8"}


class FakeBox:
    """One sandbox in memory.  `bindings` says what it was given at its hand-overs."""

    def __init__(
        self, box_id: str, spec: BoxSpec, clock: Clock, forget: Callable[[FakeBox], None]
    ) -> None:
        """Make it; only `FakeBackend.create` does."""
        self.id = box_id
        self.spec = spec
        self.bindings: list[Binding] = []
        self._clock = clock
        self._forget = forget
        self._files = MemoryFiles(spec.limits.disk_mb * 1024 * 1024)
        for path in ("/tmp", spec.working_dir):  # noqa: S108 - inside the box
            self._files.mkdir(path, now=clock.now())
        self._env = {**_BASE_ENV, **spec.env}
        self._cwd = spec.working_dir
        self._pids = itertools.count(2)
        self._runs: set[Run] = set()
        self._contexts = FakeContexts(box_id)
        self.ports = FakePorts()
        """What listens in it."""
        self.limits = spec.limits
        """What it is held to."""
        self._died: SandboxDied | None = None
        self._on_death: list[Callable[[SandboxDied], None]] = []
        self._ping_hangs = False
        self._bind_time = 0.0
        self._destroy_fails = False

    # Faults.

    def die(self, reason: DeathReason = "killed") -> None:
        """Die now, as if the kernel had killed it."""
        if self._died is not None:
            return
        self._end(SandboxDied(f"sandbox {self.id} died ({reason})", reason=reason))
        for callback in self._on_death:
            callback(self.death())

    def hang_pings(self) -> None:
        """Stop answering pings."""
        self._ping_hangs = True

    def slow_binding(self, seconds: float) -> None:
        """Take so long for a binding from now on."""
        self._bind_time = seconds

    def refuse_destroy(self) -> None:
        """Let `destroy` fail from now on."""
        self._destroy_fails = True

    def death(self) -> SandboxDied:
        """Return a new exception that says why it is dead."""
        assert self._died is not None
        return SandboxDied(str(self._died), reason=self._died.reason)

    # The Box protocol.

    @property
    def died(self) -> SandboxDied | None:
        """Why it is dead, or None while it lives."""
        return self._died

    @property
    def info(self) -> Mapping[str, Any]:
        """Say that nothing is isolated."""
        return {"backend": "fake", "isolation": "none"}

    def on_death(self, callback: Callable[[SandboxDied], None]) -> None:
        """Call `callback` when it dies other than by `destroy`."""
        self._on_death.append(callback)

    async def ping(self) -> None:
        """Answer, unless told not to."""
        await self._step()
        if self._ping_hangs:
            await anyio.sleep_forever()

    async def bind(self, binding: Binding) -> None:
        """Set variables and the working directory."""
        await self._step()
        if self._bind_time:
            await self._clock.sleep(self._bind_time)
        self.bindings.append(binding)
        self._env = _merged(self._env, binding.env)
        if binding.cwd is not None:
            self._cwd = self._files.resolve(binding.cwd, self._cwd)
            self._files.mkdir(self._cwd, now=self._clock.now())

    async def run_code(self, code: str, options: RunOptions) -> ExecResult:
        """Run simple Python to its end."""
        await self._step()
        return await self._finish(self._new_run(self._code(code, options), options))

    async def exec(self, options: RunOptions) -> ExecResult:
        """Run one of the commands of `sandpool.testing.shell`."""
        await self._step()
        return await self._finish(self._new_run(self._command(options), options))

    async def start_code(self, code: str, options: RunOptions) -> FakeProcess:
        """Start simple Python."""
        await self._step()
        return FakeProcess(self._new_run(self._code(code, options), options))

    async def start(self, options: RunOptions) -> FakeProcess:
        """Start one of the commands of `sandpool.testing.shell`."""
        await self._step()
        return FakeProcess(self._new_run(self._command(options), options))

    async def open_pty(self, options: RunOptions, *, rows: int, cols: int) -> FakeProcess:
        """Refuse: only processes have terminals."""
        raise Unsupported("a FakeBox has no terminals")

    async def dial(self, port: int) -> ByteStream:
        """Connect to what `python3 -m http.server` has become here."""
        await self._step()
        return FakeStream(self.ports.server(port))

    async def probe(self, port: int, question: str) -> bytes:
        """Ask it, and return the head of its answer."""
        await self._step()
        return await self.ports.probe(port, question)

    async def open_context(self, *, env: Mapping[str, str | None], cwd: str | None) -> str:
        """Start a namespace."""
        await self._step()
        return self._contexts.add(_merged(self._env, env), self._where(cwd))

    async def run_in_context(
        self,
        context: str,
        code: str,
        *,
        timeout: float | None,
        max_output: int | None,
        on_output: OnOutput | None = None,
    ) -> ContextResult:
        """Run one cell."""
        await self._step()
        living = self._contexts.get(context)
        outcomes: list[Outcome] = []

        async def program(run: Run) -> int:
            machine = self._machine(run, living.env, living.cwd, ())
            outcomes.append(await living.namespace.run(code, machine, value=True))
            return outcomes[0].exit_code

        options = RunOptions(timeout=timeout, max_output=max_output)
        result = await self._finish(self._new_run(program, options), on_output)
        return living.result(outcomes[0] if outcomes else None, result)

    async def close_context(self, context: str) -> None:
        """Forget a namespace."""
        await self._step()
        self._contexts.remove(context)

    async def list_contexts(self) -> list[str]:
        """Return the ids of the living ones."""
        await self._step()
        return self._contexts.ids()

    async def read_file(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a file."""
        await self._step()
        data = self._files.read(self._resolve(path))[offset:]
        data = data if length is None else data[:length]
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]

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
        await self._step()
        content = data if isinstance(data, bytes) else b"".join([piece async for piece in data])
        full = self._resolve(path)
        now = self._clock.now()
        if parents:
            self._files.mkdir(full.rpartition("/")[0] or "/", now=now)
        self._files.write(full, content, now=now, mode=mode, append=append)
        return len(content)

    async def list_files(self, path: str, *, depth: int = 1) -> list[DirEntry]:
        """List a directory."""
        await self._step()
        return self._files.list(self._resolve(path), depth=depth)

    async def stat_file(self, path: str, *, follow: bool = True) -> DirEntry:
        """Describe one path."""
        await self._step()
        return self._files.stat(self._resolve(path))

    async def make_dir(self, path: str, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a directory."""
        await self._step()
        now = self._clock.now()
        self._files.mkdir(self._resolve(path), now=now, parents=parents, exist_ok=exist_ok)

    async def move_file(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Rename."""
        await self._step()
        self._files.move(self._resolve(source), self._resolve(target), overwrite=overwrite)

    async def remove_file(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False
    ) -> None:
        """Remove a file or a tree."""
        await self._step()
        full = self._resolve(path)
        if missing_ok and not self._files.exists(full):
            return
        self._files.remove(full, recursive=recursive)

    async def reset(self) -> None:
        """Refuse: what has no processes and no mounts has nothing to compare."""
        await self._step()
        raise Unsupported("a fake sandbox is not reset; make a new one")

    async def set_limits(self, limits: Limits) -> None:
        """Note them; of all limits, only the one on bytes means something here."""
        await self._step()
        self._files.capacity = limits.disk_mb * 1024 * 1024
        self.limits = limits

    async def kill_all(self) -> int:
        """Kill every run."""
        await self._step()
        runs = list(self._runs)
        for run in runs:
            run.kill(9)
        return len(runs)

    async def destroy(self) -> None:
        """End it."""
        await anyio.lowlevel.checkpoint()
        if self._destroy_fails:
            raise DestroyFailed(f"sandbox {self.id} was told not to end")
        self._end(SandboxDied(f"sandbox {self.id} was destroyed", reason="killed"))

    def _end(self, death: SandboxDied) -> None:
        if self._died is None:
            self._died = death
        for run in list(self._runs):
            run.kill(9, self.death())
        self._forget(self)

    async def _step(self) -> None:
        if self._died is not None:
            raise self.death()
        await anyio.lowlevel.checkpoint()
        if self._died is not None:
            raise self.death()

    def _resolve(self, path: str) -> str:
        return self._files.resolve(path, self._cwd)

    def _where(self, cwd: str | None) -> str:
        return self._cwd if cwd is None else self._resolve(cwd)

    def _machine(self, run: Run, env: dict[str, str], cwd: str, argv: tuple[str, ...]) -> Machine:
        if not self._files.is_dir(cwd):
            raise file_error(errno.ENOENT, "No such file or directory", cwd)
        return Machine(
            files=self._files,
            clock=self._clock,
            env=dict(env),
            cwd=cwd,
            stdin=run.stdin,
            emit=run.emit,
            pid=run.pid,
            argv=argv,
            ports=self.ports,
        )

    def _code(self, code: str, options: RunOptions) -> Program:
        async def program(run: Run) -> int:
            env, cwd = _merged(self._env, options.env), self._where(options.cwd)
            outcome = await Namespace().run(code, self._machine(run, env, cwd, options.argv))
            if outcome.signal is not None:
                raise Exit(outcome.exit_code, outcome.signal)
            return outcome.exit_code

        return program

    def _command(self, options: RunOptions) -> Program:
        if not options.argv:
            raise InvalidSpec("a command needs at least the name of a program")

        async def program(run: Run) -> int:
            env, cwd = _merged(self._env, options.env), self._where(options.cwd)
            return await run_command(options.argv, self._machine(run, env, cwd, ()))

        return program

    def _new_run(self, program: Program, options: RunOptions) -> Run:
        run = Run(
            program,
            pid=next(self._pids),
            clock=self._clock,
            stdin=options.stdin,
            timeout=options.timeout,
            max_output=options.max_output,
            on_end=self._runs.discard,
        )
        self._runs.add(run)
        return run

    async def _finish(self, run: Run, on_output: OnOutput | None = None) -> ExecResult:
        await run.execute()
        if on_output is not None:
            for stream, data in run.output():
                awaited = on_output(stream, data)
                if awaited is not None:
                    await awaited
        return await run.result()


def _merged(base: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    for name, value in changes.items():
        if not name or "=" in name or "\0" in name + (value or ""):
            raise InvalidSpec(f"env: {name!r} or its value is nothing that a variable can be")
    merged: dict[str, str | None] = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not None}
