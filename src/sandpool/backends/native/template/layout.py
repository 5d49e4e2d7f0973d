"""What `steps.h` lays out: the functions that code without Python is given, and its programs."""

from __future__ import annotations

import ctypes
import os
from typing import Optional, Sequence, Type

from .calls import Program, Role, Step

_COMPILED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libbranch.so.1")


class Library(ctypes.Structure):
    """The functions."""

    _fields_ = [
        ("syscall", ctypes.c_void_p),
        ("fork", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("before_fork", ctypes.c_void_p),
        ("after_fork_in_parent", ctypes.c_void_p),
        ("after_fork", ctypes.c_void_p),
        ("call", ctypes.c_void_p),
    ]


class Text(ctypes.Structure):
    """Bytes that are somewhere else."""

    _fields_ = [("start", ctypes.c_void_p), ("size", ctypes.c_long)]

    @classmethod
    def of(cls, text: bytes) -> Text:
        """Lay out bytes, which have to stay alive."""
        return cls(ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p), len(text))

    def bytes(self) -> bytes:
        """Return a copy of them."""
        return ctypes.string_at(self.start, self.size) if self.size else b""


class ProgramLayout(ctypes.Structure):
    """Where a program's steps are."""

    _fields_ = [("steps", ctypes.POINTER(Step)), ("count", ctypes.c_long)]


class RoleLayout(ctypes.Structure):
    """What a child becomes."""

    _fields_ = [("program", ProgramLayout), ("function", ctypes.py_object)]


# It keeps the interpreter's lock: a child must have it, and there is nobody to give it to.
libc = ctypes.PyDLL(None, use_errno=True)


def functions() -> Library:
    """Return the functions of this process's C library and interpreter."""
    found = [getattr(libc, name) for name in ("syscall", "fork", "__errno_location")]
    python = ctypes.pythonapi
    found += python.PyOS_BeforeFork, python.PyOS_AfterFork_Parent, python.PyOS_AfterFork_Child
    found.append(python.PyObject_CallObject)
    return Library(*(ctypes.cast(function, ctypes.c_void_p) for function in found))


def lay(program: Program) -> ProgramLayout:
    """Return the layout of a program, which has to stay alive."""
    return ProgramLayout(ctypes.cast(program.steps, ctypes.POINTER(Step)), len(program.calls))


def lay_role(role: Role) -> RoleLayout:
    """Return the layout of a role, which has to stay alive."""
    return RoleLayout(lay(role.program), role.function)


def load(structures: Sequence[Type[ctypes.Structure]]) -> Optional[ctypes.PyDLL]:
    """Return the compiled library; None where it is not there, or lays these out in another way."""
    try:
        library = ctypes.PyDLL(_COMPILED)
        sizes = (ctypes.c_long * len(structures)).in_dll(library, "sandpool_sizes")
    except (OSError, ValueError):
        return None
    return library if list(sizes) == list(map(ctypes.sizeof, structures)) else None
