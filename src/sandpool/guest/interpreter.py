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

    __slots__ = ("_decided", "_locale", "encoding", "errors", "executable")

    def __init__(self, executable: str) -> None:
        """Note it; `executable` is the path of this interpreter inside the sandbox."""
        self.executable = executable
        self._locale = [os.environ.get(name) for name in _LOCALE]
        self._decided = _for_python(os.environ)
        output = sys.__stdout__
        self.encoding = output.encoding if output is not None else "utf-8"
        """Encoding of standard input, output and error."""
        self.errors = (output.errors if output is not None else None) or "strict"
        """What standard input and output do with what cannot be encoded."""

    def set_environment(self, env: Mapping[str, str]) -> None:
        """Make `env` the environment of this process, so that every fork begins with it."""
        os.environ.clear()
        os.environ.update(env)

    def must_start_anew(self) -> bool:
        """Whether the environment asks for what Python decides once, when it starts."""
        env = os.environ
        if [env.get(name) for name in _LOCALE] != self._locale:
            return True
        return _for_python(env) != self._decided

    def start_anew(self, path: str, argv: list[str]) -> NoReturn:
        """Replace this process by a new interpreter that runs `path`."""
        env = dict(os.environ)
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
