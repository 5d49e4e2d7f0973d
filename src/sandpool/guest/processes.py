"""What /proc says about the processes of the sandbox.

A process may vanish between any two reads; it is then left out.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Set

if TYPE_CHECKING:
    from typing import Iterator

_RTTIME = b"Max realtime timeout"
_UNLIMITED = b"unlimited"
_STATES_OF_THE_DEAD = frozenset("ZXx")
_LONGEST_ARGV = 4096
_ROOM = 200 * 1024
"""Bytes of the list as JSON; with the rest of the answer it stays below frames.MAX_CONTROL."""
_ENTRY_OVERHEAD = 64
_SLICE = 64


def pids() -> list[int]:
    """Return the ids of all processes but the guest."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def tag_of(pid: int) -> int | None:
    """Return the tag that `pid` carries (`kin.py`); ProcessLookupError if it has gone."""
    limits = _read(f"/proc/{pid}/limits")
    at = limits.find(_RTTIME)
    if at < 0:
        return None
    hard = limits[at + len(_RTTIME) :].split(None, 2)[1]
    return None if hard == _UNLIMITED else int(hard)


def tags() -> set[int]:
    """Return every tag that any process carries."""
    found: Set[int] = set()
    for pid in pids():
        try:
            tag = tag_of(pid)
        except ProcessLookupError:
            continue
        if tag is not None:
            found.add(tag)
    return found


def is_alive(pid: int) -> bool:
    """Whether `pid` exists and is more than a zombie."""
    try:
        return _stat(pid)[0] not in _STATES_OF_THE_DEAD
    except ProcessLookupError:
        return False


def describe(hidden: int) -> Iterator[list[dict[str, Any]] | None]:
    """Yield None between slices of work, and at last the `processes` of the protocol page.

    `hidden`, a process of ours, is left out.  The list is cut where it would not fit into one
    answer.
    """
    found: list[dict[str, Any]] = []
    room = _ROOM
    for count, pid in enumerate(pids()):
        if pid == hidden:
            continue
        if count % _SLICE == _SLICE - 1:
            yield None
        try:
            state, parent, name = _stat(pid)
            line = _read(f"/proc/{pid}/cmdline", _LONGEST_ARGV)
        except ProcessLookupError:
            continue
        argv = [os.fsdecode(word) for word in line.rstrip(b"\0").split(b"\0")] if line else [name]
        room -= len(json.dumps(argv)) + _ENTRY_OVERHEAD
        if room < 0:
            break
        found.append({"pid": pid, "ppid": parent, "argv": argv, "state": state})
    yield found


def _stat(pid: int) -> tuple[str, int, str]:
    """Return state, parent and name of a process."""
    line = os.fsdecode(_read(f"/proc/{pid}/stat"))
    # The name stands in parentheses and may hold anything, parentheses included.
    head, _, rest = line.rpartition(")")
    state, parent = rest.split(None, 2)[:2]
    return state, int(parent), f"[{head.partition('(')[2]}]"


def _read(path: str, size: int = 4096) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ProcessLookupError(path) from error
    try:
        return os.read(fd, size)
    except OSError as error:
        raise ProcessLookupError(path) from error
    finally:
        os.close(fd)
