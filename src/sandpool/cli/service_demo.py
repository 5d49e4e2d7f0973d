"""The service half of `sandpool demo`: from a definition to the URL of a healthy server, twice."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import anyio

from sandpool.client import HttpSandboxManager
from sandpool.deployment import deploy
from sandpool.errors import SandpoolError
from sandpool.models import HealthCheck, PoolSpec

_GREETING = "hello from a server that was warm before you asked\n"
_WARM = 2
_REFILL_BOUND = 30.0
"""Seconds that the place of a claimed sandbox may stay empty."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the demo has done, and that was as it should be."""

    name: str
    ms: float


class _Steps:
    def __init__(self, tell: Callable[[Step], None]) -> None:
        self.done: list[Step] = []
        self._tell = tell
        self._begun = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        step = Step(name, round((now - self._begun) * 1000, 2))
        self._begun = now
        self.done.append(step)
        self._tell(step)


async def walk(
    url: str, api_key: str | None, tell: Callable[[Step], None] = lambda _: None
) -> list[Step]:
    """Deploy a pool of web servers at a server of ours, claim two of them, and remove the pool.

    One is claimed by a call and one by a GET, as a line of shell would.  `tell` hears of each step
    as it is done.  Raises `SandpoolError` for the first that is not as it should be.
    """
    steps = _Steps(tell)
    spec = PoolSpec(
        name=f"demo-{secrets.token_hex(4)}",
        files={"index.html": _GREETING},
        entrypoint=("python3", "-m", "http.server", "8080"),
        ports=(8080,),
        health_check=HealthCheck(kind="http"),
        lifetime=300,
        min_remaining=120,
        warm=_WARM,
        max=3 * _WARM,
        allow_get_claim=True,
    )
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    async with (
        HttpSandboxManager(base_url=url, api_key=api_key) as manager,
        aiohttp.ClientSession(headers=headers) as caller,
    ):
        try:
            await deploy(manager, spec, timeout=60)
            steps.note(f"deploy a pool of {_WARM} web servers and wait for it")
            await _expect_full(manager, spec.name)
            steps.note("check it, taking nothing")
            sandbox = await manager.claim(spec.name)
            remaining = sandbox.remaining or 0.0
            if remaining < spec.min_remaining:
                raise SandpoolError(f"a claimed server has {remaining:.1f} s left")
            steps.note("claim a server by a call")
            await _expect_greeting(caller, await sandbox.url(8080))
            steps.note("GET its URL")
            await _expect_full(manager, spec.name)
            steps.note("check until the pool is full again")
            async with caller.get(f"{url}/claim/{spec.name}") as answer:
                if not answer.ok:
                    raise SandpoolError(f"GET /claim was answered with {answer.status}")
                claimed = await answer.json()
            steps.note("claim another by GET /claim")
            await _expect_greeting(caller, claimed)
            steps.note("GET its URL")
            await _expect_full(manager, spec.name)
            steps.note("check until the pool is full again")
        finally:
            with anyio.move_on_after(10, shield=True):
                await manager.delete_pool(spec.name, force=True)
    return steps.done


@asynccontextmanager
async def own_server() -> AsyncGenerator[str]:
    """Serve on a free loopback port for the length of the block; yields the URL."""
    from sandpool.server import ServerSettings, serving

    async with serving(ServerSettings(port=0)) as url:
        yield url


async def _expect_greeting(caller: aiohttp.ClientSession, url: str) -> None:
    async with caller.get(url) as answer:
        text = await answer.text()
    if text != _GREETING:
        raise SandpoolError(f"{url} was answered with {answer.status}: {text[:200]!r}")


async def _expect_full(manager: HttpSandboxManager, name: str) -> None:
    with anyio.move_on_after(_REFILL_BOUND):
        await manager.wait_pool_warm(name)
    entries = await manager.check_pool(name, check_health=True)
    faults = [entry.fault for entry in entries if entry.fault is not None]
    if len(entries) != _WARM or faults:
        raise SandpoolError(f"{len(entries)} of {_WARM} servers are ready; faults: {faults}")
