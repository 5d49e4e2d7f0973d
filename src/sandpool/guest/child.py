"""A new child of the guest, from the fork to its program.

    fork -> Departure rises through the loop to `main.serve` -> `become` -> the program, for ever

The child leaves the loop by an exception, so that a program starts near the bottom of the stack and
nothing of the loop runs in it again.  What the exception passes must not catch BaseException.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import TYPE_CHECKING

from . import kin, rights, signals

if TYPE_CHECKING:
    from typing import Callable

    from .settings import Settings

KEPT = 3
"""The descriptor under which a child keeps the one it may keep besides 0, 1 and 2."""


class Departure(BaseException):
    """Raised in a new child only."""

    def __init__(self, program: Callable[[], None]) -> None:
        """Leave the loop to run `program`, which never returns."""
        super().__init__()
        self.program = program


class Berth:
    """What a child is born with: its descriptors, directory, tag and limits."""

    __slots__ = ("cwd", "kept", "rlimits", "stderr", "stdin", "stdout", "tag")

    def __init__(
        self,
        tag: int,
        rlimits: dict[int, int],
        cwd: int,
        stdin: int,
        stdout: int,
        stderr: int,
        kept: int | None = None,
    ) -> None:
        """Hold descriptors of the guest; `become` moves copies of them to where they belong."""
        self.tag = tag
        self.rlimits = rlimits
        self.cwd = cwd
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.kept = kept


def become(settings: Settings, berth: Berth) -> None:
    """Make this child a process of the tenant: own session, its descriptors, limits and ids."""
    signal.set_wakeup_fd(-1)
    for number in (signals.SIGCHLD, signals.SIGINT):
        signals.handle(number, signals.DEFAULT)
    os.setsid()
    os.fchdir(berth.cwd)
    os.dup2(berth.stdin, 0)
    os.dup2(berth.stdout, 1)
    os.dup2(berth.stderr, 2)
    first = KEPT
    if berth.kept is not None:
        if berth.kept != KEPT:
            os.dup2(berth.kept, KEPT, inheritable=False)
        first += 1
    rights.close_from(first)
    kin.mark(berth.tag)
    for limit, most in berth.rlimits.items():
        resource.setrlimit(limit, (most, most))
    if settings.uid is not None and settings.gid is not None:
        rights.become_tenant(settings.uid, settings.gid)
    if not settings.keeps_rights:
        rights.drop_capabilities()
        rights.forbid_new_privileges()
    # Last, because a change of ids clears it; debuggers and profilers need it.
    rights.set_dumpable(True)


def execute(argv: list[str], env: dict[str, str], default_path: str) -> None:
    """Replace this process by a command, as a shell would; never returns."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    code, reason = _try(argv, env, default_path)
    os.write(2, os.fsencode(f"{argv[0]}: {reason}\n"))
    os._exit(code)


def _try(argv: list[str], env: dict[str, str], default_path: str) -> tuple[int, str]:
    """Execute `argv`; return exit code and reason if that fails."""
    name = argv[0]
    if "/" in name:
        places = [name]
    else:
        # An empty entry in PATH is the working directory, as every shell has it.
        entries = env.get("PATH", default_path).split(":")
        places = [os.path.join(entry, name) for entry in entries]
    result = 127, "No such file or directory" if "/" in name else "command not found"
    for place in places:
        error = _failed_exec(place, argv, env)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            continue
        result = 126, os.strerror(error.errno or 0)
        if not isinstance(error, PermissionError):
            break
    return result


def _failed_exec(path: str, argv: list[str], env: dict[str, str]) -> OSError:
    """Execute the file at `path`; return why that failed."""
    try:
        os.execve(path, argv, env)
    except OSError as error:
        if error.errno == errno.ENOEXEC and path != _SHELL:
            # A script without a first line that says what runs it is the shell's.
            return _failed_exec(_SHELL, ["sh", path, *argv[1:]], env)
        return error


_SHELL = "/bin/sh"
