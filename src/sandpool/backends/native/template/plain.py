"""What `plain.c` needs to serve a sandbox, and what has become of it by the time it gives up.

`plain.c` is the first to be process 1 of a sandbox, and stays it for as long as it is asked for
plain things.  The guest in Python goes on from where it stands then, which `Plain.served` tells.
"""

from __future__ import annotations

import ctypes
from typing import Any, List, Optional, Tuple

from . import jail
from .calls import Role, Slots
from .layout import Library, ProgramLayout, RoleLayout, Text, functions, lay, lay_role

_NONE = -1
_SECOND = 1_000_000_000

_OUTPUTS = ctypes.c_long * 2


class Layout(ctypes.Structure):
    """`struct plain`."""

    _fields_ = [
        ("library", Library),
        ("slots", ctypes.c_void_p),
        ("version", ctypes.c_long),
        ("hello", Text),
        ("order", Text * 2),
        ("create", ProgramLayout),
        ("remove", ProgramLayout),
        ("connect", ProgramLayout),
        ("spare", RoleLayout),
        ("hurried", RoleLayout),
        ("tag", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("host", "code", "input", "output", "error", "orders")),
        # How far it has come.
        *((name, ctypes.c_long) for name in ("pid", "is_parked")),
        *((name, ctypes.c_long) for name in ("epoch", "request")),
        *((name, ctypes.c_long) for name in ("started", "ended", "timeout", "credit")),
        *((name, _OUTPUTS) for name in ("left", "is_truncated", "has_ended")),
        *((name, ctypes.c_long) for name in ("status", "fork_at", "pause", "late_since")),
        *((name, Text) for name in ("env", "bound_env", "late", "unsent", "rest")),
    ]


class Plain:
    """What is said and done in the plain sandboxes of one kind; each has a copy of it."""

    __slots__ = ("_alive", "_slots", "_tag", "layout")

    def __init__(
        self,
        guest: Any,
        settings: Any,
        provisions: jail.Provisions,
        spare: Role,
        hurried: Role,
        tag: ctypes.Array[ctypes.c_ulong],
    ) -> None:
        """Have it made ready; `guest` is the guest's module `main`.

        `tag` is read by the program of both roles.
        """
        self._slots: Slots = provisions.slots
        self._tag = tag
        path = guest.first_path(settings)
        created, removed = jail.code_calls(provisions.privileged, settings.working_dir, path)
        texts = guest.greeting(settings), *guest.order(settings, path)
        programs = [
            *map(provisions.program, (created, removed, jail.connect_calls(provisions.slots))),
        ]
        self._alive: List[object] = [*texts, *programs, spare, hurried]
        """What the layout points at."""
        hello, *order = map(Text.of, texts)
        self.layout = Layout(
            functions(),
            self._slots.start,
            guest.frames.VERSION,
            hello,
            (Text * 2)(*order),
            *map(lay, programs),
            *map(lay_role, (spare, hurried)),
            ctypes.addressof(tag),
            *map(
                int, (jail.GUEST, jail.CODE, jail.STDIN + 1, jail.STDOUT, jail.STDERR, jail.ORDERS)
            ),
        )
        for name in ("pid", "epoch", "request", "timeout", "status", "fork_at"):
            setattr(self.layout, name, _NONE)

    def served(self, guest: Any) -> Tuple[Any, Any]:
        """Return the process that there is, and what else the guest has to know; in a sandbox."""
        found = self.layout
        process = guest.EarlySpare(
            found.pid,
            self._tag[0],
            bool(found.is_parked),
            *(self._pair(pair) for pair in (jail.STDIN, jail.STDOUT, jail.STDERR, jail.ORDERS)),
        )
        run = None
        if found.request != _NONE:
            run = guest.EarlyRun(
                number=found.request,
                started=found.started / _SECOND,
                timeout=None if found.timeout == _NONE else found.timeout / _SECOND,
                credit=found.credit,
                left=tuple(found.left),
                is_truncated=tuple(map(bool, found.is_truncated)),
                status=None if found.status == _NONE else found.status,
                ended=found.ended / _SECOND,
            )
        epoch: Optional[int] = None if found.epoch == _NONE else found.epoch
        unsent = found.unsent.bytes() + found.late.bytes()
        env, bound_env = found.env.bytes(), found.bound_env.bytes()
        return process, guest.Served(env, epoch, bound_env, run, unsent, found.rest.bytes())

    def _pair(self, slot: int) -> Tuple[int, int]:
        numbers = self._slots.numbers
        return numbers[slot], numbers[slot + 1]
