"""Hides the guest's own frames from the code that it runs.

A script's module frame is the bottom of its stack: `sys._getframe().f_back` is None there,
`traceback.print_stack()` shows no stranger, and recursion ends after exactly as many calls as under
`python3 script.py`.  CPython has no call for that, but its thread state names the running frame in one
word and counts the depth in one more, and code that it is given runs on whatever those say.  So while
foreign code runs, the first is made to name nothing and the second to count nothing.

The words are looked for by their values, in the first bytes of a structure whose address the C API
gives, and only on the versions in `_KNOWN`, where this is tested.  Where they are not found, foreign
code runs as well, and sees our frames below its own.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Callable

_KNOWN = ((3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13))
_VERSION = sys.version_info[:2]

_word = ctypes.c_size_t.from_address
_number = ctypes.c_int.from_address
_WORD = 8
_NUMBER = 4
_FRAME_IN_OBJECT = 24  # 3.11 on: PyFrameObject.f_frame, past the object's head and f_back
_CFRAME_IN_STATE = 56  # 3.11 and 3.12: PyThreadState.cframe, which holds the current frame
_SEARCHED = 200
_STRANGE_LIMIT = 54_321
_CALL_OF_CTYPES = 1 if _VERSION < (3, 12) else 0
"""How much depth the call into C itself counts for."""

_get_state: Any = ctypes.pythonapi.PyThreadState_Get
_get_state.restype = ctypes.c_size_t


def is_supported() -> bool:
    """Whether this interpreter is one whose thread state we know."""
    return (
        _VERSION in _KNOWN
        and sys.implementation.name == "cpython"
        and ctypes.sizeof(ctypes.c_void_p) == _WORD
        and not hasattr(sys, "gettotalrefcount")
        and getattr(sys, "_is_gil_enabled", bool)() in (True, False)
    )


def call_at_bottom(function: Callable[..., object], *arguments: object) -> None:
    """Call a C function that runs Python code, with nothing of ours below that code."""
    if not is_supported():
        function(*arguments)
        return
    here = _name_of(sys._getframe())
    place = _find(here)
    depth = _find_depth(place)
    if not place or not depth:
        function(*arguments)
        return
    depth_before = _number(depth).value
    try:
        _number(depth).value = _no_depth()
        _word(place).value = 0
        function(*arguments)
    finally:
        _word(place).value = here
        _number(depth).value = depth_before


def _name_of(frame: Any) -> int:
    """Return the word by which the thread state names `frame`."""
    if _VERSION < (3, 11):
        return id(frame)
    return _word(id(frame) + _FRAME_IN_OBJECT).value


def _find(name: int) -> int:
    raise NotImplementedError
