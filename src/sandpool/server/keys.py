"""API keys: random, kept by their hash, and compared without telling how much was right.

A key has 256 bits from the system's generator, so a plain SHA-256 of it cannot be searched; a slow
hash would only be a way to keep the server busy.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import InvalidSpec, Unauthorized
from sandpool.server.settings import KeySettings

_PREFIX = "sp_"
_LEAST_LENGTH = 16
_MOST_LENGTH = 512

NOTICED_WITHIN = 0.1
"""Seconds after which every request finds keys as `sandpool key` has left them."""


def new_key() -> str:
    """Return a new key, to be shown once."""
    return _PREFIX + secrets.token_urlsafe(32)


def fingerprint(key: str) -> str:
    """Return what is kept of a key; `InvalidSpec` for one that could be guessed."""
    if not _LEAST_LENGTH <= len(key) <= _MOST_LENGTH or not key.isascii() or not key.isprintable():
        raise InvalidSpec(
            f"an API key has {_LEAST_LENGTH} to {_MOST_LENGTH} printable ASCII characters; "
            "`sandpool key` makes one"
        )
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is."""

    key: str | None
    """The key's name; None on an open server."""
    namespace: str | None
    """The only namespace that it may see; None on an open server, which has no such bound."""


OPEN = Identity(key=None, namespace=None)


class KeyRing:
    """The keys of one server: those of its settings, and those that `sandpool key` adds meanwhile.

    A server that has had a key is never open again, whatever is revoked.
    """

    def __init__(
        self,
        settings: Iterable[KeySettings],
        *,
        added: Callable[[], Iterable[KeySettings] | None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        """Take the keys of the settings.

        `added` returns the others if they have changed since it was last asked, and None if not.
        """
        self._settings = tuple(settings)
        self._added = added
        self._clock = clock if clock is not None else MonotonicClock()
        self._looks_at = self._clock.now()
        """When others are asked for again: that takes longer than all else about a key."""
        self._known = _known(self._settings)
        self._is_open = not self._known
        self.refresh()

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self._is_open

    def refresh(self) -> None:
        """Take over what `sandpool key` has changed, `NOTICED_WITHIN` seconds ago or earlier."""
        now = self._clock.now()
        if now < self._looks_at:
            return
        added = self._added()
        if added is not None:
            self._known = _known((*self._settings, *added))
            self._is_open = self._is_open and not self._known
        # Only now: whoever could not look lets nobody in by the keys of before.
        self._looks_at = now + NOTICED_WITHIN

    def identify(self, presented: str | None) -> Identity:
        """Return whose key this is; `Unauthorized`.

        Every key is compared in full, so the time it takes says nothing about any of them.
        """
        self.refresh()
        if self.is_open:
            return OPEN
        if presented is None:
            raise Unauthorized("give an API key by `Authorization: Bearer` or `X-API-Key`")
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found: Identity | None = None
        for known, identity in self._known:
            if hmac.compare_digest(known, digest):
                found = identity
        if found is None:
            raise Unauthorized("this API key is not one of this server's")
        return found


def _known(keys: Iterable[KeySettings]) -> tuple[tuple[bytes, Identity], ...]:
    return tuple((bytes.fromhex(key.sha256), Identity(key.name, key.namespace)) for key in keys)
