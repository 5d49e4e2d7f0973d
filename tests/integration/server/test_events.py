"""Who follows a namespace's events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

from sandpool.errors import NoCapacity
from sandpool.manager.event import PoolEvent
from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.events import Feed
from sandpool.server.keys import fingerprint
from sandpool.server.routes.events import Following
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio

KEYS = {name: f"sp_the-key-of-{name}-alone" for name in ("ann", "bob")}
SETTINGS = ServerSettings(
    port=0,
    keys=tuple(
        KeySettings(name=name, namespace=name, sha256=fingerprint(key))
        for name, key in KEYS.items()
    ),
    event_silence=0.05,
    event_patience=0.2,
)
POOL = {"name": "p", "warm": 1, "max": 2}


@dataclass(frozen=True)
class Heard:
    """One event as a reader gets it."""

    id: str
    name: str
    data: dict[str, Any]


class Listener:
    """The lines of one answer, put together."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def line(self) -> str:
        with anyio.fail_after(60):
            return await anext(self._lines)

    async def event(self) -> Heard:
        """Return the next event; signs of life are passed over."""
        fields: dict[str, str] = {}
        while True:
            line = await self.line()
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                return Heard(fields["id"], fields["event"], json.loads(fields["data"]))
            else:
                fields.clear()

    async def events(self, count: int) -> list[Heard]:
        return [await self.event() for _ in range(count)]


@asynccontextmanager
async def following(client: httpx.AsyncClient, last: str | None = None) -> AsyncGenerator[Listener]:
    """Follow the events; in the block, the server knows that it is followed."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with client.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        listener = Listener(answer.aiter_lines())
        assert await listener.line() == ": ping"
        yield listener


def client_of(url: str, name: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url, trust_env=False, verify=False, headers={"X-API-Key": KEYS[name]}
    )


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(SETTINGS, backends={"native": FakeBackend}) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(url, "ann") as client:
        yield client


async def test_a_reader_hears_of_a_pool_and_its_sandboxes_in_their_order(
    client: httpx.AsyncClient,
) -> None:
    async with following(client) as listener:
        await client.post("/v1/pools", json=POOL)
        sandbox = (await client.post("/v1/pools/p/claim")).json()["id"]
        await client.delete(f"/v1/sandboxes/{sandbox}")
        heard = await listener.events(4)
    names = ["pool.created", "sandbox.leased", "sandbox.claimed", "sandbox.released"]
    assert [event.name for event in heard] == names
    assert [event.data["sandbox_id"] for event in heard] == [None, sandbox, sandbox, sandbox]
    assert {event.data["pool"] for event in heard} == {"p"}
    assert len({event.id for event in heard}) == 4


async def test_a_reader_hears_nothing_of_another_namespace(
    url: str, client: httpx.AsyncClient
) -> None:
    async with client_of(url, "bob") as other, following(other) as listener:
        await client.post("/v1/pools", json=POOL)
        await other.post("/v1/pools", json={**POOL, "name": "mine"})
        assert (await listener.event()).data["pool"] == "mine"


async def test_a_reader_goes_on_where_it_was_cut_off(client: httpx.AsyncClient) -> None:
    async with following(client) as listener:
        await client.post("/v1/pools", json=POOL)
        first = await listener.event()
    await client.delete("/v1/pools/p")
    async with following(client, first.id) as listener:
        assert (await listener.event()).name == "pool.deleted"


async def test_an_id_of_another_server_leaves_a_gap_and_then_all_that_is_known(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/v1/pools", json=POOL)
    async with following(client, "0badc0de-7") as listener:
        gap, event = await listener.events(2)
    assert (gap.name, gap.data, event.name) == ("gap", {"missed": None}, "pool.created")


async def test_a_silent_feed_gives_signs_of_life(client: httpx.AsyncClient) -> None:
    async with following(client) as listener:
        assert [await listener.line() for _ in range(3)] == ["", ": ping", ""]


async def test_a_server_that_stops_ends_the_answer() -> None:
    lines: list[str] = []
    begun = anyio.Event()

    async def read(url: str) -> None:
        async with client_of(url, "ann") as client, following(client) as listener:
            begun.set()
            with suppress(StopAsyncIteration):
                while True:
                    lines.append(await listener.line())
            lines.append("the end")

    # The grace that an answer without an end would have, at least.
    settings = SETTINGS.model_copy(update={"grace": 100})
    with anyio.fail_after(settings.grace / 2):
        async with (
            anyio.create_task_group() as group,
            serving(settings, backends={"native": FakeBackend}) as url,
        ):
            group.start_soon(read, url)
            await begun.wait()
    assert lines[-1] == "the end"


async def test_a_reader_that_does_not_read_is_cut_off_without_an_end() -> None:
    feed = filled(kept=2, count=5)
    taken: list[Message] = []

    async def send(message: Message) -> None:
        if len(taken) == 2:
            await anyio.sleep_forever()
        taken.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        return {}

    answer = Following(feed, None, stopping=anyio.Event(), silence=0.01, patience=0.05)
    with anyio.fail_after(60):
        await answer({"type": "http"}, receive, send)
    assert [message.get("more_body") for message in taken] == [None, True]
    assert len(feed) == 0


def filled(kept: int, count: int) -> Feed:
    feed = Feed(ManualClock(), kept=kept)
    for number in range(count):
        feed.publish(PoolEvent("pool.updated", f"p{number}"))
    return feed


@pytest.mark.parametrize(
    ("read", "missed", "pools"),
    [(0, 3, ["p3", "p4"]), (2, 1, ["p3", "p4"]), (3, 0, ["p3", "p4"]), (4, 0, ["p4"]), (5, 0, [])],
)
async def test_what_is_no_longer_remembered_is_counted(
    read: int, missed: int, pools: list[str]
) -> None:
    feed = filled(kept=2, count=5)
    batch = feed.read(feed.place_of(feed.id_of(read)))
    assert batch.missed == missed
    assert [entry.event.pool for entry in batch.entries] == pools
    assert batch.place == 5


@pytest.mark.parametrize(
    "name", ["", "-", "x-1", "-1", "{mark}-", "{mark}-x", "{mark}-6", "{mark}-²"]
)
async def test_an_id_that_is_none_is_of_no_place(name: str) -> None:
    feed = filled(kept=2, count=5)
    mark = feed.id_of(1).partition("-")[0]
    assert feed.place_of(name.format(mark=mark)) is None


async def test_a_reader_without_an_id_begins_now() -> None:
    feed = filled(kept=2, count=5)
    assert feed.read(feed.place_of(None)).entries == []


async def test_a_gap_can_be_gone_on_from() -> None:
    feed = filled(kept=2, count=5)
    written = feed.write(feed.read(0)).decode()
    place = feed.place_of(written.split("\n")[0].removeprefix("id: "))
    assert [entry.number for entry in feed.read(place).entries] == [4, 5]


async def test_there_are_only_so_many_readers() -> None:
    feed = Feed(ManualClock(), most_readers=1)
    feed.join()
    with pytest.raises(NoCapacity):
        feed.join()
    feed.leave()
    feed.join()
