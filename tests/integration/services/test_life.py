"""How long real services last, and what becomes of them and of their addresses after that."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from sandpool import LocalSandboxManager
from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint
from tests.integration.services.servers import PORT, QUICK, get, quick, until
from tests.leaks import census

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.namespaces,
    pytest.mark.slow,
]


async def test_m12_in_real_time_too_each_claim_has_what_it_needs_left() -> None:
    spec = quick(lifetime=8, min_remaining=5, warm=4, max=12, check_at_handover=True)
    left: list[float] = []
    async with LocalSandboxManager() as manager:
        await manager.create_pool(spec)
        await manager.wait_pool_warm("web")

        async def claim_again_and_again() -> None:
            while len(left) < 40:
                sandbox = await manager.claim("web")
                assert sandbox.remaining is not None
                left.append(sandbox.remaining)
                assert await get(await sandbox.url(PORT)) == "nobody"
                # Time goes by while nobody asks, as it must for the oldest to grow old.
                await anyio.sleep(0.3)
                await manager.delete_sandbox(sandbox.id)

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(claim_again_and_again)
    assert min(left) >= 5


async def test_m4_a_claimed_one_lasts_to_its_end_and_no_longer() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick(lifetime=4, warm=1))
        sandbox = await manager.claim("web")
        url = await sandbox.url(PORT)
        assert sandbox.expires_at is not None
        while (left := sandbox.remaining) is None or left > 2:
            assert await get(url) == "nobody"

        async def is_gone() -> bool:
            return await manager.get_sandbox_info(sandbox.id) is None

        await until(is_gone)
        with pytest.raises(httpx.TransportError):
            await get(url)


PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from sandpool import LocalSandboxManager, PoolSpec

    async def main():
        async with LocalSandboxManager() as manager:
            spec = PoolSpec(
                name="web", entrypoint=sys.argv[1:], ports=(8080,), warm=3, max=8, lifetime=600
            )
            await manager.create_pool(spec)
            await manager.wait_pool_warm("web")
            sandbox = await manager.claim("web")
            print(await sandbox.url(8080), flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
    """
)


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


def test_m23_when_the_manager_is_killed_no_service_is_left(
    adopted_orphans: None, tmp_path: Path
) -> None:
    before = census.take()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *QUICK],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert program.stdout is not None
    url = program.stdout.readline().strip()
    assert anyio.run(get, url) == "nobody"
    assert len(census.descendants(program.pid)) > 4
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()

    def is_clean() -> bool:
        reap()
        return census.take().descendants == before.descendants

    assert census.until(is_clean, 30)
    with pytest.raises(httpx.TransportError):
        anyio.run(get, url)


KEYS = {"ann": "sp_a-key-of-the-first-one", "bob": "sp_a-key-of-the-second-one"}
SETTINGS = ServerSettings(
    port=0,
    keys=tuple(
        KeySettings(name=name, namespace=name, sha256=fingerprint(key))
        for name, key in KEYS.items()
    ),
)


async def test_an_address_never_leads_to_another_tenant_whatever_is_used_again() -> None:
    definition = quick(warm=1, max=3).model_dump(mode="json", exclude_defaults=True)
    old: list[str] = []
    async with serving(SETTINGS) as base, httpx.AsyncClient(base_url=base, timeout=60) as web:
        for number in range(8):
            name = ("ann", "bob")[number % 2]
            web.headers["Authorization"] = f"Bearer {KEYS[name]}"
            if number < 2:
                (await web.post("/v1/pools", json=definition)).raise_for_status()
            claimed = (await web.post("/v1/pools/web/claim")).raise_for_status().json()
            files = f"/v1/sandboxes/{claimed['id']}/files"
            secret = f"{name} in round {number}"
            written = await web.put(files, params={"path": "tenant"}, content=secret.encode())
            written.raise_for_status()
            assert await get(claimed["url"]) == secret
            for url in old:
                # The port inside is the same for all of them, but what opens it is not.
                assert (await web.get(url, headers={"Authorization": ""})).status_code == 410
                token = url.partition("~")[2]
                strange = await web.get(f"/p/{claimed['id']}~{token}")
                assert strange.status_code == 404
            (await web.delete(f"/v1/sandboxes/{claimed['id']}")).raise_for_status()
            old.append(claimed["url"])


async def test_a_private_address_of_this_machine_never_leads_to_another_tenant() -> None:
    old: list[str] = []
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick(warm=1, max=3))
        for _ in range(8):
            sandbox = await manager.claim("web")
            url = httpx.URL(await sandbox.url(PORT, private=True))
            await sandbox.files.write("tenant", "a secret")
            assert await get(str(url)) == "a secret"
            for token in old:
                # As if the port of this machine had been used again.
                with pytest.raises(httpx.HTTPStatusError, match="401"):
                    await get(str(url.copy_with(password=token)))
            old.append(url.password)
            await manager.delete_sandbox(sandbox.id)
