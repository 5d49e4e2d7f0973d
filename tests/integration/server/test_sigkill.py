"""A server that is killed again and again while clients claim and borrow from it."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest

from tests.integration.server.program import served
from tests.leaks import census

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces, pytest.mark.slow]

ROUNDS = 8
POOLS = {
    "fresh": {"name": "fresh", "warm": 2, "max": 6},
    "reused": {"name": "reused", "warm": 1, "max": 3, "recycle": "reuse"},
}


@pytest.fixture
def adopted_orphans() -> Iterator[None]:
    """Make orphans of our children our own, so that the census finds them wherever they went."""
    libc = ctypes.CDLL(None)
    set_child_subreaper = 36
    libc.prctl(set_child_subreaper, 1, 0, 0, 0)
    yield
    libc.prctl(set_child_subreaper, 0, 0, 0, 0)


def reap() -> None:
    """Take note of the end of every child that has ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


@dataclass
class Ledger:
    """What all servers of one state directory have given out, as their clients were told."""

    leased: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Pools, sandboxes and epochs."""
    claimed: list[str] = field(default_factory=list[str])

    def sandboxes(self) -> set[str]:
        return {*self.claimed, *(sandbox for _, sandbox, _ in self.leased)}


async def borrow(client: httpx.AsyncClient, pool: str, ledger: Ledger) -> None:
    """Borrow and give back until the server is gone."""
    while True:
        lent = (await client.post(f"/v1/pools/{pool}/lease")).raise_for_status().json()
        state = (await client.get(f"/v1/leases/{lent['lease_id']}")).raise_for_status().json()
        ledger.leased.append((pool, state["sandbox_id"], state["epoch"]))
        run = {"command": "sleep 1000 & echo $$"}
        headers = {"X-Sandpool-Lease": lent["lease_id"]}
        path = f"/v1/sandboxes/{state['sandbox_id']}/commands"
        (await client.post(path, json=run, headers=headers)).raise_for_status()
        (await client.delete(f"/v1/leases/{lent['lease_id']}")).raise_for_status()


async def claim(client: httpx.AsyncClient, ledger: Ledger) -> None:
    """Claim and delete until the server is gone."""
    while True:
        found = (await client.post("/v1/pools/fresh/claim")).raise_for_status().json()
        ledger.claimed.append(found["id"])
        (await client.delete(f"/v1/sandboxes/{found['id']}")).raise_for_status()


async def check_restored(client: httpx.AsyncClient, ledger: Ledger) -> None:
    """Check that all is as if the last server had only paused, but for what its death took."""
    pools = {pool["name"] for pool in (await client.get("/v1/pools")).json()}
    assert pools == set(POOLS)
    for name in POOLS:
        assert (await client.post(f"/v1/pools/{name}/warm")).status_code == 204
    page = (await client.get("/v1/sandboxes")).json()
    listed = {sandbox["id"] for sandbox in page["items"]}
    assert not listed & ledger.sandboxes()
    for sandbox in ledger.claimed[-3:]:
        assert (await client.get(f"/v1/sandboxes/{sandbox}")).status_code in (404, 410)


async def load(client: httpx.AsyncClient, ledger: Ledger) -> None:
    """Use the server with several clients at once until it is gone."""

    async def until_gone(name: str) -> None:
        try:
            await (claim(client, ledger) if name == "claim" else borrow(client, name, ledger))
        except httpx.TransportError:
            return

    async with anyio.create_task_group() as group:
        for name in ("claim", "claim", "fresh", "reused", "reused"):
            group.start_soon(until_gone, name)


@pytest.mark.timeout(240)
async def test_nothing_is_given_out_twice_and_nothing_is_left_by_servers_that_are_killed(
    adopted_orphans: None, tmp_path: Path
) -> None:
    dice = random.Random(8400)
    ledger = Ledger()
    temp_dir = tmp_path / "temp"
    temp_dir.mkdir()
    before = census.take()

    ended: set[int] = set()

    def is_clean() -> bool:
        reap()
        now = census.take(*ended)
        return (now.descendants, now.mounts, now.cgroups) == (
            before.descendants,
            before.mounts,
            before.cgroups,
        )

    for number in range(ROUNDS):
        instant = dice.uniform(0.05, 1.5)
        with served(tmp_path / "state", temp_dir) as (program, url):
            async with httpx.AsyncClient(
                base_url=url, trust_env=False, verify=False, timeout=30
            ) as client:
                if number == 0:
                    for definition in POOLS.values():
                        (await client.post("/v1/pools", json=definition)).raise_for_status()
                await check_restored(client, ledger)
                async with anyio.create_task_group() as group:
                    group.start_soon(load, client, ledger)
                    await anyio.sleep(instant)
                    program.kill()
            program.wait()
        ended.add(program.pid)
        assert census.until(is_clean, 30), (number, census.take(), before)
        assert not list(temp_dir.iterdir())

    assert len(ledger.leased) > ROUNDS
    assert len(ledger.claimed) > ROUNDS
    assert len(set(ledger.leased)) == len(ledger.leased)
    assert len(set(ledger.claimed)) == len(ledger.claimed)
    epochs = [(pool, epoch) for pool, _, epoch in ledger.leased]
    assert len(set(epochs)) == len(epochs)
    assert not set(ledger.claimed) & {sandbox for _, sandbox, _ in ledger.leased}
