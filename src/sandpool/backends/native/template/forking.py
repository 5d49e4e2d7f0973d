"""What a template has forked, and has ready for what it will fork, in memory that it shares.

`forking.c`, where there is it, reads and writes the same memory, so that each of the two goes on
from where the other has stopped.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, List, Optional, Tuple

from . import jail
from .calls import Slots
from .layout import Library, ProgramLayout, Text, functions
from .root import PROC

KINDS = 64
"""Kinds with higher numbers are not forked by `forking.c`."""
_TABLES = 6
_NETWORKS = 64
_FIRST_PLACES = 64


class Table(ctypes.Structure):
    """What the kernel shows of a network namespace, and shows of a new one."""

    _fields_ = [("path", ctypes.c_char_p), ("new", Text), ("has_global", ctypes.c_long)]


class Stock(ctypes.Structure):
    """Network namespaces; see `networks.py`, which fills it."""

    _fields_ = [
        ("make", ProgramLayout),
        ("wanted", ctypes.c_long),
        ("count", ctypes.c_long),
        ("networks", ctypes.c_int * _NETWORKS),
        ("tables", Table * _TABLES),
    ]


class _Child(ctypes.Structure):
    _fields_ = [("number", ctypes.c_long), ("pid", ctypes.c_int), ("network", ctypes.c_int)]


class _User(ctypes.Structure):
    _fields_ = [("base", ctypes.c_long), ("fd", ctypes.c_long)]


class KindLayout(ctypes.Structure):
    """A kind of sandboxes: their way, or nothing if it takes Python, and how many ids they have."""

    _fields_ = [("way", ctypes.c_void_p), ("ids", ctypes.c_long)]


class Layout(ctypes.Structure):
    """`struct forking`."""

    _fields_ = [
        ("library", Library),
        ("slots", ctypes.c_void_p),
        ("control", ctypes.c_long),
        ("news", ctypes.c_long),
        ("proc", ctypes.c_long),
        ("identity", ctypes.c_long * 2),
        *((name, ctypes.c_long) for name in ("guest", "network", "user", "root", "owner")),
        ("tenant", ctypes.c_long),
        ("kinds", KindLayout * KINDS),
        ("stock", Stock),
        ("user_count", ctypes.c_long),
        ("places_of_users", ctypes.c_long),
        ("users", ctypes.POINTER(_User)),
        ("child_count", ctypes.c_long),
        ("places", ctypes.c_long),
        ("children", ctypes.POINTER(_Child)),
        ("kind", ctypes.c_long),
    ]


class Forking:
    """The children of a template and the user namespaces that they have had."""

    def __init__(self, control: int, news: int, slots: Slots) -> None:
        """Have none; `news` tells of the ends of children."""
        self._children: Any = (_Child * _FIRST_PLACES)()
        self._users: Any = (_User * _FIRST_PLACES)()
        self.layout = Layout(
            library=functions(),
            slots=slots.start,
            control=control,
            news=news,
            proc=os.open(PROC, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
            identity=(os.getuid(), os.getgid()),
            guest=jail.GUEST,
            network=jail.NETWORK,
            user=jail.USER,
            root=jail.ROOT,
            owner=jail.OWNER,
            tenant=jail.TENANT,
            users=self._users,
            places_of_users=len(self._users),
            places=len(self._children),
            children=self._children,
        )

    def add(self, number: int, pid: int, network: Optional[int]) -> None:
        """Have a child, known to the host by `number`.

        `network` is to be given back when it has ended.
        """
        layout = self.layout
        free = (child for child in self._children[: layout.child_count] if not child.number)
        child = next(free, None)
        if child is None:
            if layout.child_count == len(self._children):
                self._children = _doubled(self._children)
                layout.children, layout.places = self._children, len(self._children)
            child = self._children[layout.child_count]
            layout.child_count += 1
        child.pid, child.network = pid, -1 if network is None else network
        child.number = number

    def pid(self, number: int) -> Optional[int]:
        """Return the process of a child; None if it has been reaped."""
        for child in self._children[: self.layout.child_count]:
            if child.number == number:
                pid: int = child.pid
                return pid
        return None

    def pids(self) -> List[int]:
        """Return the processes of all children."""
        return [child.pid for child in self._children[: self.layout.child_count] if child.number]

    def remove(self, pid: int) -> Optional[Tuple[int, Optional[int]]]:
        """Forget a child that has been reaped; return its number and the network to be given back.

        None if it was none of ours.
        """
        for child in self._children[: self.layout.child_count]:
            if child.number and child.pid == pid:
                number, child.number = child.number, 0
                return number, None if child.network < 0 else child.network
        return None

    def user(self, base: int) -> Optional[int]:
        """Return the user namespace that has the host's ids from `base`; None if there is none."""
        for user in self._users[: self.layout.user_count]:
            if user.base == base:
                fd: int = user.fd
                return fd
        return None

    def keep_user(self, base: int, fd: int) -> None:
        """Have a user namespace, which nobody closes."""
        layout = self.layout
        if layout.user_count == len(self._users):
            self._users = _doubled(self._users)
            layout.users, layout.places_of_users = self._users, len(self._users)
        user = self._users[layout.user_count]
        user.base, user.fd = base, fd
        layout.user_count += 1


def _doubled(array: Any) -> Any:
    """Return an array with what is in this one, and room for as much again."""
    longer = (array._type_ * (2 * len(array)))()
    ctypes.memmove(longer, array, ctypes.sizeof(array))
    return longer
