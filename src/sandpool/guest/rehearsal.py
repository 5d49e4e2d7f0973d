"""Goes through a run of code without running any, so that the first one finds its memory ready.

After a fork every page is shared, and whoever writes to one first pays for the copy, the guest as
much as its child.  The spare has seen to its own pages (`script.rehearse`); this sees to the
guest's: the whole way of a `run_code`, with its answers thrown away and an understudy in place of
the spare.
"""

from __future__ import annotations

import json
import marshal
import os
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from . import frames
from .fields import Fields
from .request import Request
from .settings import Binding

if TYPE_CHECKING:
    from typing import Callable

    from .connection import Connection
    from .guest import Guest, Handler
    from .script import Order
    from .spare import Spare, Taken

_nobodies = count(-1, -1)
"""Process ids that no process has: one for each rehearsal, as several may go on at once."""

_REQUEST = json.dumps({"code": "print(1)", "max_output": 4096, "timeout": 60}).encode()


class _Sink:
    """A connection that leads nowhere."""

    __slots__ = ()

    is_congested = False

    def send(self, request: int, kind: int, payload: bytes = b"") -> None:
        frames.encode(request, kind, payload)

    send_soon = send

    def write(self, packet: bytes) -> None:
        """Drop it."""

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Never be congested."""


class _Understudy:
    """A spare that has already written what it was asked for."""

    __slots__ = ("_guest", "pid")

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.pid = next(_nobodies)

    def take(self, order: Order) -> Taken:
        marshal.dumps(order)
        plumbing = self._guest.plumb(True)
        os.write(plumbing.stdout, b"1\n")
        plumbing.close_theirs()
        return self._guest.kin.issue(), self.pid, plumbing

    def make_later(self) -> None:
        """Need none."""


def rehearse(guest: Guest, bind: Handler, run_code: Handler, done: Callable[[], None]) -> None:
    """Go through `bind` and `run_code` once; `done` is called when that is over."""
    sink = cast("Connection", _Sink())
    request = Request(1, sink, lambda number: done())
    true: Any = guest.connection, guest.spare, guest.binding
    understudy = _Understudy(guest)
    guest.connection, guest.spare = sink, cast("Spare", understudy)
    guest.binding = Binding(guest.settings)
    try:
        bind(guest, Request(2, sink, lambda number: None), Fields({"epoch": 1}))
        run_code(guest, request, Fields(frames.decode_json(_REQUEST)))
    except Exception:  # noqa: BLE001 (a sandbox without room for this is one without a rehearsal)
        if request.is_open:
            done()
        return
    finally:
        guest.connection, guest.spare, guest.binding = true
    guest.loop.soon(lambda: guest.reaper.tell(understudy.pid, 0))
