"""Ids and tokens.

Ids are for people and logs: short, unambiguous, unguessable enough not to collide.  Tokens are
secrets.
"""

from __future__ import annotations

import os
import secrets

# No 0, 1 or l: the alphabet of the enclave interface's generated ids.
ALPHABET = "23456789abcdefghijkmnopqrstuvwxyz"

_CHARACTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
"""A character for each byte.  Most stand for eight bytes and some for seven: 0.02 bits of 40."""


def new_sandbox_id() -> str:
    """Return eight characters of `ALPHABET`."""
    return os.urandom(8).translate(_CHARACTERS).decode()


def new_pool_id() -> str:
    """Return `pool-` and eight characters of `ALPHABET`."""
    return f"pool-{new_sandbox_id()}"


def new_lease_id() -> str:
    """Return `lease-` and eight characters of `ALPHABET`."""
    return f"lease-{new_sandbox_id()}"


def new_token() -> str:
    """Return 256 bits of randomness as URL-safe text."""
    return secrets.token_urlsafe(32)
