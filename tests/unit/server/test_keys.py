"""Keys that come and go while a server runs."""

from __future__ import annotations

from hashlib import sha256

import pytest

from sandpool.errors import Unauthorized
from sandpool.server.keys import NOTICED_WITHIN, OPEN, Identity, KeyRing
from sandpool.server.settings import KeySettings
from sandpool.testing.manual_clock import ManualClock

pytestmark = pytest.mark.anyio


def key(name: str) -> KeySettings:
    """Return what is kept of the key `name * 16`."""
    return KeySettings(name=name, sha256=sha256(name.encode() * 16).hexdigest(), namespace="n")


class Ring:
    """A ring, and the keys that `sandpool key` has left."""

    def __init__(self) -> None:
        self.keys: list[KeySettings] = []
        self.clock = ManualClock()
        self.fault: OSError | None = None
        self.looks = 0
        self.ring = KeyRing([], added=self._look, clock=self.clock)

    def _look(self) -> list[KeySettings]:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return list(self.keys)

    def opens(self, name: str) -> bool:
        try:
            return self.ring.identify(name * 16) == Identity(name, "n")
        except Unauthorized:
            return False


async def test_every_request_finds_the_keys_as_they_were_a_moment_ago() -> None:
    ring = Ring()
    assert ring.ring.identify(None) == OPEN
    ring.keys = [key("a"), key("b")]
    await ring.clock.advance(NOTICED_WITHIN)
    assert ring.opens("a")
    assert ring.opens("b")
    ring.keys = [key("b")]
    await ring.clock.advance(NOTICED_WITHIN)
    assert not ring.opens("a")
    assert ring.opens("b")


async def test_requests_in_the_same_moment_do_not_look_again() -> None:
    ring = Ring()
    for _ in range(100):
        ring.ring.identify(None)
    assert ring.looks == 1
    await ring.clock.advance(NOTICED_WITHIN)
    for _ in range(100):
        ring.ring.identify(None)
    assert ring.looks == 2


async def test_a_server_that_has_had_a_key_is_never_open_again() -> None:
    ring = Ring()
    ring.keys = [key("a")]
    await ring.clock.advance(NOTICED_WITHIN)
    assert ring.opens("a")
    ring.keys = []
    await ring.clock.advance(NOTICED_WITHIN)
    with pytest.raises(Unauthorized):
        ring.ring.identify(None)


async def test_whoever_cannot_look_lets_nobody_in_by_the_keys_of_before() -> None:
    ring = Ring()
    ring.keys = [key("a")]
    await ring.clock.advance(NOTICED_WITHIN)
    assert ring.opens("a")
    ring.fault = OSError("the disk is gone")
    await ring.clock.advance(NOTICED_WITHIN)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            ring.opens("a")
    ring.fault, ring.keys = None, []
    assert not ring.opens("a")
