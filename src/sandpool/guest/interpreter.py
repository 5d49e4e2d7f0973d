"""The warm interpreter: what a run takes over from it, and when a run needs a new one instead.

It is this process: the guest was forked from a template that has started Python, imported what was
to be preloaded and stopped right there.  A run of code is a fork of it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from typing import Mapping

_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")
"""Read by Python when it starts, for the encoding of everything."""

_FOLLOWED = frozenset(("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"))
"""Variables for Python that `script` can still follow in an interpreter that has started."""


class Interpreter:
    """What was noted before any code of a tenant ran."""

    __slots__ = ("_decided", "_locale", "encoding", "env", "errors", "executable", "is_followed")

    def __init__(self, executable: str) -> None:
        """Note it; `executable` is the path of this interpreter inside the sandbox."""
        self.executable = executable
        self.env = dict(os.environ)
        """The environment that this process has, and every fork begins with."""
        self.is_followed = True
        """Whether a fork can do all that `env` asks of an interpreter."""
        self._locale = [self.env.get(name) for name in _LOCALE]
        self._decided = _for_python(self.env)
        output = sys.__stdout__
        self.encoding = output.encoding if output is not None else "utf-8"
        """Encoding of standard input, output and error."""
        self.errors = (output.errors if output is not None else None) or "strict"
        """What standard input and output do with what cannot be encoded."""

    def set_environment(self, env: dict[str, str]) -> None:
        """Make `env` the environment of this process; what is the same already is not touched."""
        if env == self.env:
            return
        for name in [name for name in self.env if name not in env]:
            del os.environ[name]
        for name, value in env.items():
            if self.env.get(name) != value:
                os.environ[name] = value
        self.env = dict(env)
        locale = [env.get(name) for name in _LOCALE]
        self.is_followed = locale == self._locale and _for_python(env) == self._decided

    def start_anew(self, path: str, argv: list[str]) -> NoReturn:
        """Replace this process by a new interpreter that runs `path`."""
        env = dict(self.env)
        # The code's own directory holds nothing but the code; its neighbours are in the cwd.
        found = env.get("PYTHONPATH")
        env["PYTHONPATH"] = os.getcwd() + (":" + found if found else "")
        os.execve(self.executable, [self.executable, path, *argv], env)


def _for_python(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may have decided something when this interpreter started."""
    return {
        name: value
        for name, value in env.items()
        if name.startswith("PYTHON") and name not in _FOLLOWED
    }
