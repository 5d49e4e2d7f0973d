"""The box that every backend with our guest gives out."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sandpool.backends.base import Binding, BoxSpec, Limits
from sandpool.backends.box import GuestBox
from sandpool.backends.connection import GuestConnection
from sandpool.errors import SandboxDied
from sandpool.guest import frames

pytestmark = pytest.mark.anyio


class Keeper:
    """Knows nothing of its box."""

    info: Mapping[str, Any] = {}

    def was_oom_killed(self) -> bool:
        return False

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        return {}

    async def set_limits(self, limits: Limits) -> None:
        pass

    async def end(self) -> None:
        pass


class Deaf:
    """A box whose guest reads nothing."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.box = GuestBox("deaf", BoxSpec())
        self.connection = GuestConnection(ours, self.box.note_death)
        self.box.begin(self.connection, Keeper())

    def fill(self) -> None:
        """Send more than a guest may leave unread."""
        while self.connection.unsent <= frames.INITIAL_CREDIT:
            self.connection.send(frames.encode(1, frames.DATA, bytes(frames.CHUNK)))


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    deaf = Deaf()
    yield deaf
    deaf.connection.close(SandboxDied("the test is over"))
    deaf.theirs.close()


async def test_a_binding_waits_for_nothing(deaf: Deaf) -> None:
    with pytest.raises(StopIteration):
        deaf.box.bind(Binding(epoch=1)).send(None)


async def test_a_guest_that_does_not_read_is_given_up_at_its_binding(deaf: Deaf) -> None:
    deaf.connection.attach()
    deaf.fill()
    with pytest.raises(SandboxDied, match="did not read"):
        await deaf.box.bind(Binding(epoch=1))
    assert deaf.box.died is not None
