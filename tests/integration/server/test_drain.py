"""A server that is told to stop: it ends what it has begun, begins nothing, and ends well."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend
from sandpool.wire import events
from tests.integration.server.program import served

pytestmark = pytest.mark.anyio

EVENTS = {"Accept": events.MEDIA_TYPE}


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, sandbox: str, command: str
) -> AsyncGenerator[AsyncIterator[events.Event]]:
    """Run a command and read its events."""
    path = f"/v1/sandboxes/{sandbox}/commands"
    async with client.stream("POST", path, json={"command": command}, headers=EVENTS) as answer:
        reader = events.Reader()

        async def read() -> AsyncIterator[events.Event]:
            async for line in answer.aiter_lines():
                event = reader.feed(line)
                if event is not None:
                    yield event

        yield read()


@pytest.mark.slow
@pytest.mark.namespaces
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_progress_ends_well_and_then_the_server_does(
    tmp_path: Path, stop: signal.Signals
) -> None:
    with served(tmp_path / "state", tmp_path) as (program, url):
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, verify=False, timeout=30
        ) as client:
            sandbox = (await client.post("/v1/sandboxes")).raise_for_status().json()["id"]
            command = "echo begun; sleep 0.5; echo done"
            async with following(client, sandbox, command) as found:
                assert (await anext(found)).name == "stdout"
                program.send_signal(stop)
                rest = [event async for event in found]
        assert [event.name for event in rest] == ["stdout", "result"]
        assert await anyio.to_thread.run_sync(program.wait) == 0


@pytest.mark.slow
@pytest.mark.namespaces
async def test_an_idle_connection_holds_up_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "state", tmp_path) as (program, url):
        async with httpx.AsyncClient(
            base_url=url, trust_env=False, verify=False, timeout=60
        ) as client:
            assert (await client.get("/healthz")).status_code == 200
            program.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(lambda: program.wait(60)) == 0


async def test_a_call_that_takes_longer_than_the_grace_is_ended() -> None:
    settings = ServerSettings(port=0, grace=0)
    pool = {"name": "full", "warm": 0, "max": 1}
    backend = FakeBackend()
    ended = anyio.Event()
    async with anyio.create_task_group() as group:
        async with (
            serving(settings, backends={"native": lambda: backend}) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
        ):
            await client.post("/v1/pools", json=pool)
            (await client.post("/v1/pools/full/claim")).raise_for_status()

            async def wait_in_vain() -> None:
                answer = httpx.Response(200)
                try:
                    async with httpx.AsyncClient(
                        base_url=url, trust_env=False, verify=False
                    ) as other:
                        answer = await other.post("/v1/pools/full/claim", timeout=30)
                except httpx.TransportError:
                    pass
                else:
                    assert answer.status_code >= 500
                ended.set()

            group.start_soon(wait_in_vain)
            while (await client.get("/v1/pools/full")).json()["waiting"] == 0:
                await anyio.lowlevel.checkpoint()
        with anyio.fail_after(60):
            await ended.wait()
