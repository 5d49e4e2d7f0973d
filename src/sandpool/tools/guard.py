"""The module policy of `python_executor`, and the import guard that holds it inside a run.

The text of this file is sent into the sandbox in front of the code (`ModulePolicy.guarded`), and
the host imports it for `refused`, so that both ends judge by the same lines.  Hence: standard
library only, Python 3.8 and later, no imports of ours.

It is a policy and no security boundary: code that is allowed to run at all can find its way round
any guard in the same interpreter (`sys.modules`, frames, `ctypes`).  What keeps a tenant in is the
sandbox.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_ALWAYS = frozenset(("__future__", "__main__"))


def _covers(entry: str, name: str) -> bool:
    return name == entry or name.startswith(entry + ".")


def refused(
    name: str, members: Iterable[str], allowed: Sequence[str] | None, blocked: Iterable[str]
) -> str | None:
    """Return the first module that `import name` or `from name import members` may not have.

    `allowed` is a list, or None for everything; an entry stands for a module and all below it.
    What is blocked stays blocked if it is allowed too.  None: nothing is refused.
    """
    if name in _ALWAYS:
        return None
    for entry in blocked:
        if _covers(entry, name):
            return name
        for member in members:
            if _covers(entry, f"{name}.{member}"):
                return f"{name}.{member}"
    if allowed is None or any(_covers(entry, name) for entry in allowed):
        return None
    below = [entry for entry in allowed if entry.startswith(name + ".")]
    if not below:
        return name
    # A package above an allowed module is imported on the way to it, and is good for that only.
    for member in members:
        full = f"{name}.{member}"
        if not any(_covers(entry, full) or entry.startswith(full + ".") for entry in below):
            return full
    return None


class _Guard:
    """Stands in the way of imports that the code itself asks for.

    What modules of the installation import for their own use is not asked about: `json` may be
    allowed without everything that it is made of.
    """

    def __init__(
        self, allowed: Sequence[str] | None, blocked: Sequence[str], libraries: Iterable[str]
    ) -> None:
        self._allowed = allowed
        self._blocked = blocked
        self._libraries = tuple(libraries)
        self._checkers: list[types.CodeType] = []

    def install(self) -> None:
        """Stand in the way from now on."""
        import builtins
        import importlib

        original, original_module = builtins.__import__, importlib.import_module

        def import_(
            name: str,
            globals: Mapping[str, object] | None = None,
            locals: Mapping[str, object] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> types.ModuleType:
            if level == 0:
                self._check(str(name), fromlist or ())
            return original(name, globals, locals, fromlist, level)

        def import_module(name: str, package: str | None = None) -> types.ModuleType:
            self._check(str(name), ())
            return original_module(name, package)

        self._checkers = [import_.__code__, import_module.__code__]
        builtins.__import__ = import_
        importlib.import_module = import_module
        importlib.__import__ = import_
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse, or leave the search to the finders behind this one."""
        self._check(name, ())

    def _check(self, name: str, members: Iterable[str]) -> None:
        found = refused(name, members, self._allowed, self._blocked)
        if found is not None and not self._asked_by_library():
            raise ImportError(f"module {found!r} is not allowed here", name=found)

    def _asked_by_library(self) -> bool:
        """Whether the import that is being checked is not the code's own wish."""
        frame: types.FrameType | None = sys._getframe(3)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        while frame is not None:
            if frame.f_code in self._checkers:
                # A step of an import that has been checked.
                return True
            name = str(frame.f_globals.get("__name__"))
            if name != "importlib" and not name.startswith(("importlib.", "_frozen_importlib")):
                return self._is_library(frame.f_globals)
            frame = frame.f_back
        return False

    def _is_library(self, variables: Mapping[str, Any]) -> bool:
        spec: Any = variables.get("__spec__")
        module = sys.modules.get(getattr(spec, "name", ""))
        # Only the globals of a module that was really imported: not a dict that says it is one.
        if module is None or vars(module) is not variables:
            return False
        origin = str(spec.origin)
        return origin in ("built-in", "frozen") or origin.startswith(self._libraries)


def _installed() -> list[str]:
    """Return where the installation keeps its modules; never the working directory."""
    import os

    here = os.getcwd()  # noqa: PTH109 - pathlib would be one more import of every run
    found = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100
    return [path.rstrip("/") + "/" for path in found if path != here]


def run(source: str, name: str, allowed: Sequence[str] | None, blocked: Sequence[str]) -> None:
    """Run `source` under the guard as if it were the script `name`."""
    import linecache
    import traceback

    # A new module: this one's names are ours, and the guard goes on using them.
    main = types.ModuleType("__main__")
    main.__dict__.update({"__file__": name, "__builtins__": sys.modules["builtins"]})
    sys.modules["__main__"] = main
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    guard = _Guard(allowed, blocked, _installed())
    try:
        code = compile(source, name, "exec", dont_inherit=True)
        guard.install()
        exec(code, main.__dict__)  # noqa: S102 - this is what the tool is for
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - told as the interpreter does, without our frames
        told = traceback.TracebackException.from_exception(error)
        own = run.__code__.co_filename
        theirs = [frame for frame in told.stack if frame.filename != own]
        told.stack = traceback.StackSummary.from_list(theirs)
        sys.stderr.writelines(told.format())
        sys.exit(1)
