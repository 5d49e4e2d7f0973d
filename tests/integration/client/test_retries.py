"""Calls whose answers do not come: which are made again, and what is left of those that are not."""

from __future__ import annotations

import json

import anyio
import pytest

from sandpool.client import HttpSandboxManager
from sandpool.client.calls import Answer
from sandpool.client.transport import Transport
from sandpool.errors import AcquireTimeout, RemoteError, SandboxNotFound, ServerUnreachable
from sandpool.models import PoolSpec, SandboxConfig, SandboxType
from tests.integration.client.proxy import Fate, Proxy

pytestmark = pytest.mark.anyio

TOOLS = SandboxConfig(tools_config={"python_executor": {}})


@pytest.mark.parametrize("fate", ["lose", "refuse", "gateway"])
async def test_a_question_is_asked_again(
    manager: HttpSandboxManager, proxy: Proxy, fate: Fate
) -> None:
    proxy.fates("GET /v1/pools/rl", fate, fate)
    assert (await manager.get_pool("rl")).ready == 1
    assert proxy.count("GET /v1/pools/rl") == 3


async def test_a_connection_that_the_server_has_closed_is_made_anew(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(manager.get_pool, "rl")
    proxy.fates("GET", "refuse", "refuse")
    for _ in range(6):
        await manager.list_pools()


async def test_a_claim_whose_answer_was_lost_is_the_same_claim(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.fates("POST /v1/pools/rl/claim", "lose", "lose")
    sandbox = await manager.claim("rl")
    assert proxy.count("POST /v1/pools/rl/claim") == 3
    assert (await manager.get_pool("rl")).leased == 1
    assert await manager.delete_sandbox(sandbox.id)


async def test_a_pool_whose_answer_was_lost_is_there_once(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.fates("POST /v1/pools", "lose")
    made = await manager.create_pool(PoolSpec(name="second"))
    assert (await manager.get_pool("second")).pool_id == made.pool_id


async def test_a_deletion_whose_answer_was_lost_has_been_made(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    sandbox_id = await manager.create_sandbox(SandboxType.NATIVE)
    proxy.fates("DELETE", "lose")
    assert await manager.delete_sandbox(sandbox_id)
    assert not await manager.delete_sandbox(sandbox_id)


async def test_what_runs_something_is_never_run_twice(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    sandbox_id = await manager.create_sandbox(SandboxType.NATIVE, TOOLS)
    proxy.fates("POST /v1/sandboxes", "lose")
    with pytest.raises(ServerUnreachable, match=proxy.url):
        await manager.execute_tool(sandbox_id, "python_executor", {"code": "open('n', 'a')"})
    assert proxy.count(f"POST /v1/sandboxes/{sandbox_id}/tools") == 1


async def test_a_call_that_is_never_answered_is_given_up(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.decide = lambda _: "refuse"
    with pytest.raises(ServerUnreachable, match=proxy.url):
        await manager.list_pools()
    assert proxy.count("GET /v1/pools") == 4


async def test_a_proxy_without_a_server_is_told_from_a_server(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.decide = lambda _: "gateway"
    with pytest.raises(RemoteError, match="502"):
        await manager.list_pools()


async def test_an_answer_of_something_else_is_an_error_of_ours(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.decide = lambda _: "page"
    for call in (
        manager.list_pools(),
        manager.get_pool("rl"),
        manager.list_sandboxes(),
        manager.claim("rl"),
        manager.initialize_pool(1, SandboxType.NATIVE),
    ):
        with pytest.raises(RemoteError, match="cannot read"):
            await call


async def test_an_error_of_a_newer_server_keeps_its_words(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.decide = lambda _: "strange"
    with pytest.raises(RemoteError, match="418: short and stout"):
        await manager.get_pool("rl")


async def test_a_caller_who_gives_up_before_the_answer_comes_costs_nothing(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    for path in ("claim", "lease"):
        proxy.held = anyio.Event()
        proxy.fates(f"POST /v1/pools/rl/{path}", "hold")
        async with anyio.create_task_group() as group:
            if path == "claim":
                group.start_soon(manager.claim, "rl")
            else:
                group.start_soon(manager.lease("rl").__aenter__)
            await proxy.held.wait()
            assert (await manager.get_pool("rl")).leased == 1
            group.cancel_scope.cancel()
        # Without waiting: the sandbox has been given back by the time that the caller goes on.
        assert (await manager.get_pool("rl")).leased == 0


async def test_a_sandbox_that_nobody_waits_for_any_more_is_deleted(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    proxy.fates("POST /v1/sandboxes", "hold")
    async with anyio.create_task_group() as group:
        group.start_soon(manager.create_sandbox, SandboxType.NATIVE, None, "mine")
        await proxy.held.wait()
        group.cancel_scope.cancel()
    assert await manager.get_sandbox_info("mine") is None


async def test_a_caller_who_gives_up_waiting_leaves_the_queue(
    manager: HttpSandboxManager,
) -> None:
    held = [await manager.claim("rl") for _ in range(2)]
    async with anyio.create_task_group() as group:
        group.start_soon(manager.claim, "rl")
        while (await manager.get_pool("rl")).waiting == 0:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    # The proxy has not told the server that its client left: the client has, by the call's key.
    assert (await manager.get_pool("rl")).waiting == 0
    assert await manager.delete_sandbox(held[0].id)
    assert (await manager.get_pool("rl")).leased == 1


async def test_the_client_has_a_deadline_of_its_own(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    taken_back: list[int] = []

    async def take_back(answer: Answer) -> None:
        taken_back.append(answer.status)
        sandbox_id: str = json.loads(answer.content)["sandbox"]["id"]
        await manager.delete_sandbox(sandbox_id)

    transport = Transport(proxy.url, slack=0.0)
    await transport.start()
    try:
        proxy.fates("POST /v1/pools/rl/claim", "hold")
        with pytest.raises(AcquireTimeout, match=proxy.url):
            await transport.obtain(
                "/v1/pools/rl/claim", json={"timeout": 0.2}, timeout=0.2, take_back=take_back
            )
    finally:
        await transport.aclose()
    assert taken_back == [200]
    assert (await manager.get_pool("rl")).leased == 0


async def test_a_refusal_is_not_asked_about_again(
    manager: HttpSandboxManager, proxy: Proxy
) -> None:
    with pytest.raises(SandboxNotFound):
        await manager.get_sandbox_tools("nobody")
    for _ in range(2):
        await manager.claim("rl", timeout=10)
    with pytest.raises(AcquireTimeout):
        await manager.claim("rl", timeout=0)
    assert proxy.count("GET /v1/sandboxes") == 1
    assert proxy.count("POST /v1/pools/rl/claim") <= 3
