"""Real servers that die, hang or never come up: none of them is handed out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

import anyio
import pytest

from sandpool import LocalSandboxManager
from sandpool.backends.base import Backend, Box, BoxSpec
from sandpool.errors import PoolDegraded
from sandpool.manager.backends import default_backend
from sandpool.models import HealthCheck, ImagePull
from tests.integration.services.servers import PORT, get, hurt, quick, server_pids, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.namespaces,
    pytest.mark.slow,
]


async def claim_and_call(manager: LocalSandboxManager, count: int) -> dict[str, str]:
    """Claim at once as many as are wanted, call each, and return their answers by URL."""
    answers: dict[str, str] = {}

    async def claim() -> None:
        sandbox = await manager.claim("web")
        url = await sandbox.url(PORT)
        answers[url] = await get(url)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(claim)
    return answers


async def test_twenty_claims_at_once_are_twenty_servers_that_answer() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick(warm=4, max=24))
        await manager.wait_pool_warm("web")
        answers = await claim_and_call(manager, 20)
        assert list(answers.values()) == ["nobody"] * 20


async def test_m7_a_server_that_was_killed_between_two_looks_is_never_handed_out() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick())
        for _ in range(3):
            await manager.wait_pool_warm("web")
            hurt(server_pids()[0], signal.SIGKILL)
            answers = await claim_and_call(manager, 2)
            assert list(answers.values()) == ["nobody"] * 2


async def test_m7_a_server_that_was_killed_is_replaced_before_anybody_asks() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick())
        await manager.wait_pool_warm("web")
        before = {entry.id for entry in await manager.check_pool("web")}
        hurt(server_pids()[1], signal.SIGKILL)

        async def is_mended() -> bool:
            now = {entry.id for entry in await manager.check_pool("web")}
            return len(now) == 3 and len(now - before) == 1

        await until(is_mended)


async def test_m7_a_server_that_hangs_is_given_up_and_another_one_is_handed_out() -> None:
    health = HealthCheck(kind="http", timeout=1, start_timeout=30)
    async with LocalSandboxManager() as manager:
        await manager.create_pool(quick(warm=2, health_check=health))
        await manager.wait_pool_warm("web")
        hung = server_pids()
        for pid in hung:
            hurt(pid, signal.SIGSTOP)
        assert list((await claim_and_call(manager, 2)).values()) == ["nobody"] * 2
        # What hung is ended, and not only set aside.

        async def is_gone() -> bool:
            return not set(hung) & set(server_pids())

        await until(is_gone)


async def test_a_server_that_never_answers_is_told_with_what_it_said_and_leaves_nothing() -> None:
    code = f"""
import socket
listener = socket.create_server(("127.0.0.1", {PORT}))
print("waiting for a licence", flush=True)
while True:
    listener.accept()[0].recv(1)
"""
    health = HealthCheck(kind="http", timeout=0.5, start_timeout=1.5)
    spec = quick(
        entrypoint=("python3", "-I", "-S", "-c", code),
        health_check=health,
        create_retries=0,
        warm=1,
    )
    async with LocalSandboxManager() as manager:
        await manager.create_pool(spec)
        with pytest.raises(PoolDegraded, match="it said: waiting for a licence"):
            await manager.claim("web")


class EveryThirdFails:
    """A backend of real sandboxes; in every third one the variable `BAD` is set."""

    def __init__(self) -> None:
        self._inner = default_backend()
        self._count = 0
        self.name = self._inner.name

    async def prepare(self, spec: BoxSpec) -> None:
        await self._inner.prepare(spec)

    def pulls(self) -> Mapping[str, ImagePull]:
        return self._inner.pulls()

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> Box:
        self._count += 1
        if self._count % 3 == 0:
            env: Mapping[str, str] = {**spec.env, "BAD": "1"}
            spec = replace(spec, env=env)
        return await self._inner.create(spec, box_id=box_id, on_made=on_made)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_setup_that_fails_one_time_in_three_fills_the_pool_and_is_counted() -> None:
    spec = quick(setup=('test -z "$BAD" || { echo bad luck >&2; exit 1; }',), warm=6)
    backend: Backend = EveryThirdFails()
    async with LocalSandboxManager(backends={"native": lambda: backend}) as manager:
        await manager.create_pool(spec)

        async def is_full() -> bool:
            return (await manager.get_pool("web")).ready == 6

        await until(is_full)
        info = await manager.get_pool("web")
        assert info.create_failures >= 2
        assert info.state == "open"
        assert "bad luck" in (info.last_error or "")
        assert list((await claim_and_call(manager, 2)).values()) == ["nobody"] * 2
