"""Ids and names of sandboxes: which is which can be told from the text alone."""

from __future__ import annotations

import re
import secrets

from sandpool.errors import InvalidSpec
from sandpool.ids import ALPHABET

_ID_LENGTH = 21
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(rf"[a-z0-9]{{{_ID_LENGTH}}}")


def new_id() -> str:
    """Return the id of a new sandbox; no name looks like it."""
    return "".join(secrets.choice(ALPHABET) for _ in range(_ID_LENGTH))


def check_name(name: str) -> str:
    """Return a name that a caller may give to a sandbox; `InvalidSpec` for any other."""
    if _NAME.fullmatch(name) is None:
        raise InvalidSpec(
            "name: a lower-case letter, then up to 62 of a-z, 0-9 and hyphens, the last no hyphen"
        )
    if _ID.fullmatch(name):
        raise InvalidSpec(f"name: {_ID_LENGTH} letters and digits are what ids look like")
    return name
