"""`ModulePolicy`: which modules the code of `python_executor` may import.

The code is read before it runs, so that what it plainly says is refused without running any of it,
and it runs under an import guard (`guard.py`) for what it does not say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandpool.tools import guard

MAX_SOURCE = 262_144
"""Characters of code that are read for imports; longer code is refused where there is a policy.

Parsing takes the host's time and memory, some hundred times the size of the code.
"""

_IMPORT_CALLS = frozenset({"__import__", "import_module"})


@dataclass(frozen=True, slots=True)
class ModulePolicy:
    """An entry stands for a module and all below it; what is blocked stays blocked."""

    allowed: tuple[str, ...] | None = None
    """None: every module that is not blocked."""
    blocked: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it lets everything pass."""
        return self.allowed is None and not self.blocked

    def refusal(self, source: str) -> str | None:
        """Say why this code may not run; None if nothing in its text forbids it.

        Code that does not compile is not refused: the interpreter says better what is wrong.
        """
        if len(source) > MAX_SOURCE:
            return f"Code over {MAX_SOURCE} characters cannot be checked for imports"
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return None
        except (RecursionError, MemoryError):
            return "Code this deeply nested cannot be checked for imports"
        for name, members in imports(tree):
            found = self.refused(name, members)
            if found is not None:
                return f"Module {found!r} is not allowed"
        return None

    def refused(self, name: str, members: Sequence[str] = ()) -> str | None:
        """Return the module that may not be imported, if there is one."""
        return guard.refused(name, members, self.allowed, self.blocked)

    def guarded(self, source: str) -> str:
        """Return a program that runs `source` under the guard."""
        return (
            f"{_guard_source()}\n\nrun({source!r}, 'main.py', {self.allowed!r}, {self.blocked!r})\n"
        )


def imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Iterate over what a program plainly imports: a module, and what is taken from it."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield alias.name, ()
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield module, tuple(alias.name for alias in names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                called = getattr(function, "attr", getattr(function, "id", None))
                if called in _IMPORT_CALLS and not name.startswith("."):
                    yield name, ()
            case _:
                pass


def _guard_source() -> str:
    return Path(guard.__file__).read_text(encoding="utf-8")
