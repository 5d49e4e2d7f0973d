"""System calls written down beforehand, to be made in a process that was just forked.

After a fork every page is shared with the parent, and whoever writes to one first pays for a copy;
Python writes wherever it goes.  So what a new sandbox has to do is worked out before the fork, once
for many sandboxes, and kept as numbers in memory that code without Python can follow
(`branch.c`).  `perform` here follows the same memory, where there is no such code.

What differs from sandbox to sandbox is in a row of slots: numbers that are set before the fork, or
by an earlier call.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

SLOTS = 64
"""How many there are."""

FAILED, ERROR, CHILD = SLOTS - 3, SLOTS - 2, SLOTS - 1
"""Slots that tell how a fork went: the number of the call that failed, or -1; its errno; and the
process id of the second child, -1 where there is none."""

ANY_ERROR = -1
"""For `Call.forgiven`: whatever comes of it, go on."""

Numbers = Dict[str, int]
"""System calls by name, as this machine numbers them."""

_ARGUMENTS = 6
_NOWHERE = -1


class Slot(int):
    """The place of a number that is not known beforehand."""


Memory = Union["ctypes.Array[Any]", ctypes.Structure]
Argument = Union[int, Slot, bytes, Memory]
"""A number, the slot of one, or what a pointer is to lead to; text ends with its zero."""


class Call(NamedTuple):
    """One system call."""

    name: str
    arguments: Tuple[Argument, ...]
    saved: Optional[Slot] = None
    """Where its result goes."""
    forgiven: int = 0
    """An error that is none, or `ANY_ERROR`."""
    least: int = 0
    """A result below this is a failure."""


class Step(ctypes.Structure):
    """A call as `branch.c` reads it; the two go together."""

    _fields_ = [
        ("number", ctypes.c_long),
        ("arguments", ctypes.c_long * _ARGUMENTS),
        ("is_slot", ctypes.c_long),
        ("saved", ctypes.c_long),
        ("forgiven", ctypes.c_long),
        ("least", ctypes.c_long),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * (1 + _ARGUMENTS)


class Slots:
    """The row of slots; its memory stays where it is."""

    def __init__(self) -> None:
        """Have nothing in them."""
        self.numbers = array("i", bytes(array("i").itemsize * SLOTS))
        self.start, _ = self.numbers.buffer_info()

    def address(self, slot: Slot) -> int:
        """Return where a call may write into a slot, or into two."""
        return self.start + int(slot) * self.numbers.itemsize


class Program:
    """Calls in their order; nothing of it changes after it has been made."""

    def __init__(self, calls: Sequence[Call], numbers: Numbers) -> None:
        """Lay it out; KeyError for a call that `numbers` does not have."""
        self.calls = tuple(calls)
        self.steps = (Step * len(self.calls))()
        self._alive: List[object] = []
        """What the steps point at."""
        for step, call in zip(self.steps, self.calls):
            step.number = numbers[call.name]
            step.saved = _NOWHERE if call.saved is None else call.saved
            step.forgiven = call.forgiven
            step.least = call.least
            for place, argument in enumerate(call.arguments):
                step.arguments[place] = self._number(argument)
                if isinstance(argument, Slot):
                    step.is_slot |= 1 << place

    def _number(self, argument: Argument) -> int:
        if isinstance(argument, int):
            return argument
        held: Any = (
            ctypes.create_string_buffer(argument) if isinstance(argument, bytes) else argument
        )
        self._alive.append(held)
        return ctypes.addressof(held)

    def perform(self, slots: Slots) -> bool:
        """Make the calls; return whether all went well, and say so in the slots, too."""
        numbers = slots.numbers
        for index, step in enumerate(self.steps):
            arguments: List[int] = [
                numbers[argument] if step.is_slot >> place & 1 else argument
                for place, argument in enumerate(step.arguments)
            ]
            result = _syscall(step.number, *arguments)
            error = ctypes.get_errno() if result < 0 else errno.EPROTO
            if result < step.least and step.forgiven not in (ANY_ERROR, error):
                numbers[FAILED], numbers[ERROR] = index, error
                return False
            if step.saved != _NOWHERE:
                numbers[step.saved] = result
        numbers[FAILED] = -1
        return True

    def describe(self, index: int, number: int) -> str:
        """Return what to say of the call that failed with an errno."""
        call = self.calls[index]
        shown = [str(one) if isinstance(one, int) else _text(one) for one in call.arguments]
        return f"{call.name}({', '.join(shown)}): {os.strerror(number)}"


class Role(NamedTuple):
    """What a child becomes."""

    program: Program
    """Which it follows first; if that fails it ends."""
    function: Callable[[], NoReturn]


def _text(argument: object) -> str:
    return ascii(argument.decode(errors="replace")) if isinstance(argument, bytes) else "..."
