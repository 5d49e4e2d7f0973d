"""A manager's life: its event loops, its key, what it leaves, and what it needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from sandpool.client import HttpSandboxManager
from sandpool.errors import (
    InvalidSpec,
    ManagerNotStarted,
    ServerUnreachable,
    Unauthorized,
)
from sandpool.manager.manager_factory import SandboxManagerFactory
from sandpool.models import PoolSpec, SandboxConfig, SandboxManagerConfig, SandboxType
from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint, new_key
from sandpool.testing import FakeBackend

NATIVE = SandboxType.NATIVE
TOOLS = SandboxConfig(tools_config={"python_executor": {}})
POOL = PoolSpec(name="rl", warm=1, max=2)


@pytest.fixture
def url() -> Iterator[str]:
    """A server on a thread of its own, for clients that begin and end event loops."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            serving(ServerSettings(port=0), backends={"native": FakeBackend})
        ) as url,
    ):
        yield url


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_three_event_loops_in_turn_can_use_one_manager(url: str) -> None:
    manager = HttpSandboxManager(base_url=url)

    async def begin() -> str:
        await manager.start()
        await manager.create_pool(POOL)
        return await manager.create_sandbox(NATIVE, TOOLS)

    async def use(sandbox_id: str) -> object:
        async with manager.lease("rl"):
            result = await manager.execute_tool(sandbox_id, "python_executor", {"code": "print(1)"})
        return result.output

    async def end() -> None:
        await manager.stop()
        await manager.stop()

    sandbox_id = asyncio.run(begin())
    assert asyncio.run(use(sandbox_id)) == "1\n"
    asyncio.run(end())

    async def look() -> list[str]:
        async with HttpSandboxManager(base_url=url) as other:
            assert await other.get_sandbox_info(sandbox_id) is None
            return [pool.name for pool in await other.list_pools()]

    assert asyncio.run(look()) == ["rl"]


def test_a_stopped_manager_can_be_started_again(url: str) -> None:
    manager = HttpSandboxManager(base_url=url)

    async def main() -> None:
        for _ in range(2):
            async with manager:
                assert await manager.list_pools() == []
            with pytest.raises(ManagerNotStarted):
                await manager.list_pools()

    asyncio.run(main())


def test_clients_share_pools_and_none_takes_them_along(url: str) -> None:
    async def main() -> None:
        async with HttpSandboxManager(base_url=url) as keeper:
            async with HttpSandboxManager(base_url=url) as guest:
                first = await keeper.initialize_pool(2, NATIVE, TOOLS)
                assert set(await guest.initialize_pool(2, NATIVE, TOOLS)) == set(first)
                claimed = await guest.create_pool(POOL)
                sandbox = await guest.claim(claimed.name)
                own = await guest.create_sandbox(NATIVE)
                stats = await guest.get_stats()
                assert (stats["manager_type"], stats["base_url"]) == ("http", url)
                assert (stats["tracked_sandboxes"], stats["pool_size"]) == (1, 2)
                assert stats["tracked_status_counts"] == {"running": 1}
            assert await keeper.get_sandbox_info(own) is None
            assert await keeper.get_sandbox_info(sandbox.id) is not None
            result = await keeper.execute_tool_in_pool("python_executor", {"code": "print(2)"})
            assert result.output == "2\n"

    asyncio.run(main())


def test_a_pool_of_the_configuration_is_made_by_the_first_call_for_it(url: str) -> None:
    config = SandboxManagerConfig(base_url=url, pool_size=1, sandbox_config=TOOLS)

    async def main() -> object:
        async with HttpSandboxManager(config) as manager:
            await manager.initialize_pool(sandbox_type=NATIVE)
            await manager.cleanup_all_sandboxes()
            await manager.initialize_pool(sandbox_type=NATIVE)
            result = await manager.execute_tool_in_pool("python_executor", {"code": "print(3)"})
            return result.output

    assert asyncio.run(main()) == "3\n"


@pytest.mark.anyio
async def test_a_key_is_sent_from_wherever_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    settings = ServerSettings(port=0, keys=(KeySettings(name="one", sha256=fingerprint(key)),))
    async with serving(settings, backends={"native": FakeBackend}) as url:
        async with HttpSandboxManager(base_url=url) as without:
            with pytest.raises(Unauthorized):
                await without.list_pools()
        config = SandboxManagerConfig(base_url=url, api_key=key)
        monkeypatch.setenv("SANDPOOL_URL", url)
        for manager in (
            HttpSandboxManager(config),
            HttpSandboxManager(SandboxManagerConfig(base_url=url), api_key=key),
            SandboxManagerFactory.create_manager(base_url=url, api_key=key),
        ):
            await manager.start()
            assert await manager.list_pools() == []
            await manager.stop()
            assert key not in repr(vars(manager))
        monkeypatch.setenv("SANDPOOL_API_KEY", key)
        async with HttpSandboxManager() as manager:
            assert await manager.list_pools() == []
            assert (await manager.health_check())["healthy"]


@pytest.mark.anyio
async def test_the_environment_names_no_other_way_to_the_server(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with HttpSandboxManager(base_url=url) as manager:
        assert await manager.list_pools() == []


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_named() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    await listener.aclose()
    async with HttpSandboxManager(base_url=url, api_key="sp_secret_of_somebody") as manager:
        for call in (manager.list_pools(), manager.claim("rl"), manager.delete_sandbox("one")):
            with pytest.raises(ServerUnreachable, match=url) as caught:
                await call
            assert "secret" not in str(caught.value)
        health = await manager.health_check()
        assert (health["healthy"], url in health["error"]) == (False, True)
        assert url in (await manager.get_stats())["error"]


@pytest.mark.parametrize(
    "bad", ["", "127.0.0.1:8400", "ftp://host", "http://", "http://host:x", "http://h/?key=k"]
)
def test_what_is_no_url_is_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDPOOL_URL", raising=False)
    with pytest.raises(InvalidSpec, match="base_url"):
        HttpSandboxManager(base_url=bad)


def test_a_key_does_not_belong_in_the_url() -> None:
    with pytest.raises(InvalidSpec, match="api_key") as caught:
        HttpSandboxManager(base_url="http://user:hunter2@127.0.0.1:8400")
    assert "hunter2" not in str(caught.value)


WITHOUT = """
import sys
for name in ("aiohttp", "websockets"):
    sys.modules[name] = None
import sandpool, sandpool.enclave
from sandpool import HttpSandboxManager, LocalSandboxManager, SandboxClient
from sandpool.errors import Unsupported
try:
    HttpSandboxManager(base_url="http://127.0.0.1:8400")
except Unsupported as error:
    print(error)
"""


def test_without_the_packages_the_error_says_how_to_get_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=100, check=True
    )
    assert "pip install 'sandpool[client]'" in done.stdout


def test_importing_the_manager_loads_no_http_library() -> None:
    code = "import sys, sandpool, sandpool.client; print('aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "False\n"
