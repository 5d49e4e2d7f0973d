"""The fields of one REQUEST, taken out one by one and checked.

Pure.  A field that nobody took is refused, so that a misspelt limit never becomes no limit.  `null`
for an optional field is the same as leaving it out.
"""

from __future__ import annotations

import math
import os
import resource
from typing import Any, Dict, List, cast

from .refusal import Refusal, bad_request

_MISSING: Any = object()
_FOREVER = 10.0 * 365 * 24 * 3600


class Fields:
    """What a REQUEST brought."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        """Take over `values`."""
        self._values = values

    def finish(self) -> None:
        """Refuse what is left; every handler calls this before it does anything."""
        if self._values:
            names = ", ".join(sorted(self._values))[:200]
            raise bad_request(f"unknown fields: {names}")

    def text(self, name: str, default: Any = _MISSING) -> Any:
        """Take a string, or `default`."""
        value = self._take(name, default)
        if value is not default and not isinstance(value, str):
            raise _wrong(name, "a string")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Take a boolean."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise _wrong(name, "true or false")
        return value

    def integer(self, name: str, default: Any = _MISSING, low: int = 0, high: int = 1 << 62) -> Any:
        """Take a whole number from `low` to `high`, or `default`."""
        value = self._take(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(name, f"a whole number from {low} to {high}")
        return value

    def seconds(self, name: str) -> float | None:
        """Take an optional length of time, more than nothing."""
        value = self._take(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(name, "a number of seconds")
        if not 0 < value < math.inf:
            raise _wrong(name, "more than 0 seconds")
        return float(min(value, _FOREVER))

    def path(self, name: str, default: Any = _MISSING) -> Any:
        """Take a path that the kernel could understand, or `default`."""
        value = self._take(name, default)
        if value is not default and (not isinstance(value, str) or not value):
            raise _wrong(name, "a path")
        if value is not default:
            _check_bytes(name, value)
        return value

    def strings(self, name: str, required: bool = False) -> list[str]:
        """Take a list of strings that a process can be given."""
        given = self._take(name, _MISSING if required else [])
        if not isinstance(given, list):
            raise _wrong(name, "a list of strings")
        value = cast("List[Any]", given)
        if not all(isinstance(item, str) for item in value):
            raise _wrong(name, "a list of strings")
        for item in value:
            _check_bytes(name, item)
        if required and (not value or not value[0]):
            raise _wrong(name, "a list that begins with a program's name")
        return value

    def environment(self, name: str) -> dict[str, str | None]:
        """Take variables to set, or to remove where the value is null."""
        given = self._take(name, {})
        if not isinstance(given, dict):
            raise _wrong(name, "an object")
        value = cast("Dict[str, Any]", given)
        for key, text in value.items():
            if not key or "=" in key or not (text is None or isinstance(text, str)):
                raise _wrong(name, "an object of names and strings, or null to remove one")
            _check_bytes(name, key)
            if text is not None:
                _check_bytes(name, text)
        return value

    def rlimits(self, name: str) -> dict[str, int]:
        """Take numbers by the names of the resources that they limit."""
        given = self._take(name, _MISSING)
        if not isinstance(given, dict):
            raise _wrong(name, "an object")
        value = cast("Dict[str, Any]", given)
        for key, number in value.items():
            if not key.startswith("RLIMIT_") or not hasattr(resource, key):
                raise _wrong(name, "an object of the names of resources")
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 62:
                raise _wrong(name, "an object of whole numbers")
        return value

    def _take(self, name: str, default: Any) -> Any:
        value = self._values.pop(name, None)
        if value is None:
            if default is _MISSING:
                raise bad_request(f"the field {name!r} is missing")
            return default
        return value


def _wrong(name: str, wanted: str) -> Refusal:
    return bad_request(f"the field {name!r} must be {wanted}")


def _check_bytes(name: str, text: str) -> None:
    """Refuse what has no form as bytes, or a NUL in it: the kernel would cut it short."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise _wrong(name, "text that can be encoded") from None
    if "\0" in text:
        raise _wrong(name, "text without NUL")
