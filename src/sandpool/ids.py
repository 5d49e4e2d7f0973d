"""Ids and tokens.

Ids are for people and logs: short, unambiguous, unguessable enough not to collide.  Tokens are
secrets.
"""

from __future__ import annotations

import secrets

# No 0, 1 or l: the alphabet of the enclave interface's generated ids.
ALPHABET = "23456789abcdefghijkmnopqrstuvwxyz"


def new_sandbox_id() -> str:
    """Return eight characters of `ALPHABET`."""
    # One number for all of them: this is on the path of every lease.
    number = secrets.randbits(64)
    characters: list[str] = []
    for _ in range(8):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return "".join(characters)


def new_pool_id() -> str:
    """Return `pool-` and eight characters of `ALPHABET`."""
    return f"pool-{new_sandbox_id()}"


def new_lease_id() -> str:
    """Return `lease-` and eight characters of `ALPHABET`."""
    return f"lease-{new_sandbox_id()}"


def new_token() -> str:
    """Return 256 bits of randomness as URL-safe text."""
    return secrets.token_urlsafe(32)
