"""What happens in a namespace, remembered for a while, and told to who follows it.

A reader has no queue of its own: it has a place in what is remembered, so it costs nothing however
slow it is.  One that falls out of what is remembered is told that there is a gap.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import anyio

from sandpool.clock import Clock
from sandpool.errors import NoCapacity
from sandpool.manager.event import PoolEvent
from sandpool.wire import events

GAP = "gap"
"""The event that stands for those that a reader has missed: it has to look at what there is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event and its place."""

    number: int
    at: datetime
    """The moment, in UTC."""
    event: PoolEvent


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader gets at once."""

    entries: Sequence[Entry]
    missed: int
    """How many events before these are no longer remembered; -1: nobody knows."""
    place: int
    """The number of the last event that has been read with these."""


class Feed:
    """The events of one namespace."""

    def __init__(self, clock: Clock, *, kept: int = 1024, most_readers: int = 64) -> None:
        """Remember the last `kept` events, for up to `most_readers` at one time."""
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._last = 0
        # Numbers begin anew with every server, so they only count with its mark.
        self._mark = secrets.token_hex(4)
        self._news: anyio.Event | None = None
        """What readers wait for; None: nobody has since the last event."""
        self._most_readers = most_readers
        self._readers = 0

    def __len__(self) -> int:
        """Return how many readers there are."""
        return self._readers

    def publish(self, event: PoolEvent) -> None:
        """Take in an event; never waits."""
        self._last += 1
        self._entries.append(Entry(self._last, self._clock.utc(), event))
        news, self._news = self._news, None
        if news is not None:
            news.set()

    def join(self) -> None:
        """Count a reader, who has to `leave`; `NoCapacity`."""
        if self._readers >= self._most_readers:
            raise NoCapacity(f"{self._readers} readers follow this namespace's events already")
        self._readers += 1

    def leave(self) -> None:
        """Count a reader out."""
        self._readers -= 1

    def place_of(self, event_id: str | None) -> int | None:
        """Return where a reader goes on that has read up to `event_id`.

        Without an id, that is after everything that there is.  None: the id is not one of this
        feed's, and so nobody knows what its reader has missed.
        """
        if event_id is None:
            return self._last
        mark, _, number = event_id.partition("-")
        if mark != self._mark or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        place = int(number)
        return place if place <= self._last else None

    def id_of(self, place: int) -> str:
        """Return the id of the event with this number."""
        return f"{self._mark}-{place}"

    def read(self, place: int | None) -> Batch:
        """Return what has come after `place`; after an unknown one, all that is remembered."""
        oldest = self._last - len(self._entries)
        if place is None:
            return Batch(tuple(self._entries), -1, self._last)
        start = max(place, oldest)
        found = [entry for entry in self._entries if entry.number > start]
        return Batch(found, start - place, self._last)

    async def wait(self, place: int) -> None:
        """Return once there is something after `place`."""
        while self._last <= place:
            if self._news is None:
                self._news = anyio.Event()
            # Cancel: nothing has been taken yet.
            await self._news.wait()

    def write(self, batch: Batch) -> bytes:
        """Return a batch as it goes over the wire."""
        pieces: list[bytes] = []
        if batch.missed:
            missed = None if batch.missed < 0 else batch.missed
            first = batch.entries[0].number if batch.entries else batch.place + 1
            pieces.append(self._write(first - 1, GAP, {"missed": missed}))
        for entry in batch.entries:
            event = entry.event
            data = {
                "at": entry.at.isoformat(),
                "pool": event.pool,
                "sandbox_id": event.sandbox_id,
                "lease_id": event.lease_id,
                "detail": event.detail,
            }
            pieces.append(self._write(entry.number, event.kind, data))
        return b"".join(pieces)

    def _write(self, number: int, name: str, data: object) -> bytes:
        return f"id: {self.id_of(number)}\n".encode() + events.write(name, data)
