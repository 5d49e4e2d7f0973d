"""A server that starts where another one ended, well or badly."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from sandpool.server import ServerSettings, serving
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio

POOL = {"name": "rl", "warm": 1, "max": 4, "env": {"A": "secret"}}


@asynccontextmanager
async def server(state_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = ServerSettings(port=0, state_dir=state_dir)
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        yield client


async def test_pools_are_back_with_their_ids_and_their_environment(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        created = (await client.post("/v1/pools", json=POOL)).json()
    async with server(tmp_path) as client:
        (found,) = (await client.get("/v1/pools")).json()
        assert (found["pool_id"], found["spec"]) == (created["pool_id"], created["spec"])
        assert (await client.post("/v1/pools/rl/warm")).status_code == 204
        claimed = (await client.post("/v1/pools/rl/claim")).json()
        assert claimed["sandbox"]["status"] == "busy"


async def test_a_changed_pool_comes_back_as_it_was_changed(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        shown = (await client.post("/v1/pools", json=POOL)).json()["spec"]
        changed = {**shown, "warm": 2}
        assert (await client.put("/v1/pools/rl", json=changed)).status_code == 200
    async with server(tmp_path) as client:
        (found,) = (await client.get("/v1/pools")).json()
        assert found["spec"]["warm"] == 2
    # The client sent back what it was shown in place of the secret, and the secret is still there.
    assert b"secret" in (tmp_path / "journal.sqlite").read_bytes()


async def test_a_deleted_pool_stays_away(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        for name in ("one", "two"):
            await client.post("/v1/pools", json={**POOL, "name": name})
        assert (await client.delete("/v1/pools/one")).status_code == 204
    async with server(tmp_path) as client:
        assert [pool["name"] for pool in (await client.get("/v1/pools")).json()] == ["two"]
        assert (await client.post("/v1/cleanup")).status_code == 204
    async with server(tmp_path) as client:
        assert (await client.get("/v1/pools")).json() == []


async def key(*words: str, state_dir: Path) -> str:
    """Run `sandpool key`, which is a process of its own, and return what it printed."""
    command = [sys.executable, "-m", "sandpool", "key", *words, "--state-dir", str(state_dir)]
    return (await anyio.run_process(command)).stdout.decode().strip()


async def test_keys_open_a_running_server_until_they_are_revoked(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        assert (await client.get("/v1/pools")).status_code == 200
        given = await key("add", "ci", state_dir=tmp_path)
        assert (await client.get("/v1/pools")).status_code == 401
        client.headers["X-API-Key"] = given
        assert (await client.post("/v1/pools", json=POOL)).status_code == 201
        await key("revoke", "ci", state_dir=tmp_path)
        assert (await client.get("/v1/pools")).status_code == 401
        client.headers["X-API-Key"] = given = await key("add", "ci", state_dir=tmp_path)
        assert (await client.get("/v1/pools")).status_code == 200
    # What was noted after other processes had opened the journal is there, too.
    async with server(tmp_path) as client:
        client.headers["X-API-Key"] = given
        assert [pool["name"] for pool in (await client.get("/v1/pools")).json()] == ["rl"]


async def test_a_pool_that_was_refused_is_not_remembered(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        refused = await client.post("/v1/pools", json={**POOL, "image": "/nowhere"})
        assert refused.status_code >= 400
    async with server(tmp_path) as client:
        assert (await client.get("/v1/pools")).json() == []


async def test_epochs_never_go_back(tmp_path: Path) -> None:
    epochs: list[int] = []
    for start in range(2):
        async with server(tmp_path) as client:
            if start == 0:
                await client.post("/v1/pools", json=POOL)
            lease = (await client.post("/v1/pools/rl/lease")).json()["lease_id"]
            epochs.append((await client.get(f"/v1/leases/{lease}")).json()["epoch"])
    assert epochs[0] < epochs[1]
