"""Forks a sandbox's first process, takes it through its calls, and forks its spare.

With `libbranch.so.1` no Python runs between the fork of the template and the fork of the spare;
without it the same programs are followed here, at the price of pages that every sandbox copies.
It is compiled when sandpool is installed where there is a C compiler.

    R1  Both ways leave the same behind: in the parent a pid, in the child where it stands.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, NoReturn, Optional

from . import forking, plain
from .calls import CHILD, ERROR, Program, Role, Slots, Step
from .layout import Library, ProgramLayout, RoleLayout, functions, lay, lay_role, libc, load
from .plain import Plain


class _Branch(ctypes.Structure):
    _fields_ = [
        ("library", Library),
        ("before", ProgramLayout),
        ("after", ProgramLayout),
        ("first", ProgramLayout),
        ("second", RoleLayout),
        ("is_twice", ctypes.c_long),
        ("slots", ctypes.c_void_p),
        ("plain", ctypes.c_void_p),
    ]


# Looked up now: each child would do it again.
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
after_fork_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _each in (_before_fork, _after_fork_in_parent, after_fork_in_child):
    _each.restype = None


class Way:
    """What the children of a fork are to do, laid out for it; `Brancher.way` makes one."""

    __slots__ = ("first", "layout", "plain", "reference", "second")

    def __init__(
        self,
        first: Program,
        second: Optional[Role],
        plain: Optional[Plain],
        layout: _Branch,
    ) -> None:
        """Hold it; nothing of it changes."""
        self.first = first
        """By the child of the parent."""
        self.second = second
        """Of the child of that child, which is forked then; None: it has none."""
        self.plain = plain
        """What the child has served then, before it goes on in Python."""
        self.layout = layout
        self.reference = ctypes.byref(layout)


class Brancher:
    """Forks along two programs of its own, and a way that each call names."""

    def __init__(self, before: Program, after: Program, slots: Slots) -> None:
        """Have `before` and `after` performed by the parent, around each fork."""
        self._before = before
        self._after = after
        self._slots = slots
        library = compiled()
        self._compiled = None if library is None else _returns_long(library.sandpool_branch)

    @property
    def is_compiled(self) -> bool:
        """Whether it follows a way to its end without Python."""
        return self._compiled is not None

    def way(self, first: Program, second: Optional[Role], plain: Optional[Plain] = None) -> Way:
        """Lay out a way; a child serves what is `plain` only where this is compiled."""
        programs = [lay(program) for program in (self._before, self._after, first)]
        layout = _Branch(functions(), *programs, slots=self._slots.start)
        if second is not None:
            layout.second = lay_role(second)
            layout.is_twice = True
        if plain is not None:
            layout.plain = ctypes.addressof(plain.layout)
        return Way(first, second, plain, layout)

    def branch(self, way: Way) -> int:
        """Fork; return the child's pid, and 0 in it, whose slots say how it went.

        Raises OSError if nothing was forked.
        """
        pid = self._in_python(way) if self._compiled is None else self._compiled(way.reference)
        if pid == 0:
            after_fork_in_child()
            return 0
        if pid < -1:
            os._exit(1)  # a template that is not where it was is none any more
        if pid < 0:
            number = self._slots.numbers[ERROR]
            raise OSError(number, "fork: " + os.strerror(number))
        return pid

    def _in_python(self, way: Way) -> int:
        slots = self._slots
        _before_fork()
        pid = self._fork_between()
        if pid:
            _after_fork_in_parent()
            return pid
        slots.numbers[CHILD] = -1
        if way.first.perform(slots) and way.second is not None:
            child: int = libc.fork()
            slots.numbers[CHILD] = child
            if child == 0:
                _become(way.second, slots)
        return 0

    def _fork_between(self) -> int:
        slots = self._slots
        if not self._before.perform(slots):
            return -1
        pid: int = libc.fork()
        if pid == 0:
            return 0
        error = ctypes.get_errno()
        if not self._after.perform(slots):
            return -2
        slots.numbers[ERROR] = error
        return pid


def _become(role: Role, slots: Slots) -> NoReturn:
    if role.program.perform(slots):
        after_fork_in_child()
        role.function()
    os._exit(1)


def is_compiled() -> bool:
    """Whether there is a `libbranch.so.1` that can be used."""
    return compiled() is not None


def compiled() -> Optional[ctypes.PyDLL]:
    """Return `libbranch.so.1`; None where it is not there, or not of this version."""
    return load((Step, _Branch, plain.Layout, forking.Layout))


def fork_on_request() -> Optional[Callable[..., int]]:
    """Return what `forking.c` serves a template's host with; None where it is not compiled.

    It is called with a reference to `forking.Layout`, and returns 0 in a sandbox.
    """
    library = compiled()
    return None if library is None else _returns_long(library.sandpool_fork_on_request)


def _returns_long(function: Any) -> Callable[..., int]:
    function.restype = ctypes.c_long
    found: Callable[..., int] = function
    return found
