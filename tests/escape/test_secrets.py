"""A secret that is bound at hand-over is nowhere but in the sandbox that it was bound to."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandpoolError
from sandpool.errors import InvalidSpec
from sandpool.server import ServerSettings, serving
from sandpool.service import Sandbox
from tests.conftest import ASYNCIO, Loop
from tests.leaks import census

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

REVEAL = """
import os
print(os.environ["TOKEN"])
raise RuntimeError(os.environ["TOKEN"])
"""


@pytest.fixture
def anyio_backend() -> Loop:
    return ASYNCIO


@pytest.fixture
def secret() -> str:
    return "canary-" + secrets.token_hex(16)


@pytest.fixture
async def manager(caplog: pytest.LogCaptureFixture) -> AsyncIterator[LocalSandboxManager]:
    caplog.set_level(logging.DEBUG)
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="one", warm=2, max=4))
        await manager.wait_pool_warm("one")
        yield manager


async def use(manager: LocalSandboxManager, secret: str) -> Sandbox:
    """Bind the secret, use it, and let the program fail with it."""
    sandbox = await manager.claim("one", env={"TOKEN": secret})
    result = await sandbox.run_code(REVEAL)
    assert result.stdout == secret + "\n", "the tenant itself has it"
    assert (await sandbox.exec(["printenv", "TOKEN"])).stdout == secret + "\n"
    return sandbox


def others(namespace: str) -> Iterator[int]:
    """Yield the processes below us that are not of the pid namespace of this name."""
    for pid in census.descendants(os.getpid()):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != namespace:
                yield pid
        except OSError:
            continue


async def test_no_description_shows_it(manager: LocalSandboxManager, secret: str) -> None:
    sandbox = await use(manager, secret)
    shown = [
        await manager.get_sandbox_info(sandbox.id),
        await manager.list_sandboxes(),
        await manager.get_pool("one"),
        await manager.list_pools(),
        await manager.get_stats(),
        await manager.get_sandbox_tools(sandbox.id),
        sandbox,
        sandbox.config,
    ]
    assert secret not in repr(shown)


async def test_a_pools_own_variables_are_shown_by_name_only(secret: str) -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="two", warm=1, max=2, env={"TOKEN": secret}))
        async with manager.lease("two") as sandbox:
            assert (await sandbox.exec(["printenv", "TOKEN"])).stdout == secret + "\n"
            shown = [
                await manager.get_pool("two"),
                await manager.list_sandboxes(),
                (await manager.get_pool("two")).model_dump_json(),
                sandbox,
            ]
    assert secret not in repr(shown)
    assert "TOKEN" in repr(shown)


async def test_no_log_has_it(
    manager: LocalSandboxManager, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = await use(manager, secret)
    await manager.delete_sandbox(sandbox.id)
    assert secret not in caplog.text


async def test_no_error_has_it(manager: LocalSandboxManager, secret: str) -> None:
    errors: list[BaseException] = []
    for env in ({"NOT A NAME": secret}, {"X": secret + "\0"}):
        with pytest.raises(InvalidSpec) as refused:
            await manager.claim("one", env=env)
        errors.append(refused.value)
    sandbox = await use(manager, secret)
    await manager.delete_sandbox(sandbox.id)
    with pytest.raises(SandpoolError) as over:
        await sandbox.run_code("1")
    errors.append(over.value)
    assert secret not in repr([(str(error), error.args) for error in errors])


async def test_no_command_line_or_environment_has_it(
    manager: LocalSandboxManager, secret: str
) -> None:
    sandbox = await use(manager, secret)
    inside = (await sandbox.exec(["readlink", "/proc/self/ns/pid"])).stdout.strip()
    seen = 0
    for pid in {os.getpid(), *others(inside)}:
        for name in ("cmdline", "environ"):
            try:
                content = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            seen += 1
            assert secret.encode() not in content, (pid, name)
    assert seen > 2


@pytest.mark.root
async def test_neither_the_template_nor_another_sandbox_has_it_in_memory(
    manager: LocalSandboxManager, secret: str
) -> None:
    sandbox = await use(manager, secret)
    inside = (await sandbox.exec(["readlink", "/proc/self/ns/pid"])).stdout.strip()
    await manager.wait_pool_warm("one")
    looked_at = [pid for pid in others(inside) if is_in_memory(pid, secret.encode()) is not None]
    assert len(looked_at) >= 3, "the template, and the first process of two sandboxes"
    assert not [pid for pid in looked_at if is_in_memory(pid, secret.encode())]
    own = set(census.descendants(os.getpid())) - set(others(inside))
    assert any(is_in_memory(pid, secret.encode()) for pid in own), "else nothing was looked at"


def is_in_memory(pid: int, needle: bytes) -> bool | None:
    """Whether a process has these bytes in its memory; None if it is gone."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps.splitlines():
                match = re.match(r"(\w+)-(\w+) rw", line)
                if match is None:
                    continue
                start, end = int(match[1], 16), int(match[2], 16)
                memory.seek(start)
                if needle in memory.read(end - start):
                    return True
    except OSError:
        return None
    return False


async def test_it_does_not_outlast_its_sandbox(manager: LocalSandboxManager, secret: str) -> None:
    sandbox = await use(manager, secret)
    await manager.delete_sandbox(sandbox.id)
    async with manager.lease("one") as other:
        found = await other.exec(["sh", "-c", f"grep -rl {secret[:20]} /sandbox /tmp /run /home"])
        assert found.stdout == ""
        assert (
            await other.run_code("import os; print(os.environ.get('TOKEN'))")
        ).stdout == "None\n"


async def test_a_server_tells_and_keeps_neither_a_tenants_nor_its_operators(
    secret: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own = secret[::-1]
    settings = ServerSettings(port=0, state_dir=tmp_path, secrets={"OWN": own})
    seen: list[bytes] = []
    async with (
        serving(settings) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
        client.stream("GET", "/v1/events") as events,
    ):

        async def tell(method: str, path: str, **body: object) -> httpx.Response:
            answer = await client.request(method, path, json=body or None)
            assert answer.is_success, answer.text
            return answer

        await tell("POST", "/v1/pools", name="one", warm=1, max=4, secret_names=["OWN"])
        claimed = (await tell("POST", "/v1/pools/one/claim", env={"TOKEN": secret})).json()
        path = f"/v1/sandboxes/{claimed['id']}"
        code = "import os; print(os.environ['TOKEN'], os.environ['OWN'])"
        ran = (await tell("POST", f"{path}/code", code=code)).json()
        assert ran["stdout"] == f"{secret} {own}\n", "else there was nothing to tell"
        places = ["/v1/pools", "/v1/pools/one", "/v1/pools/one/sandboxes", "/v1/sandboxes"]
        places += [path, f"{path}/logs", "/metrics", "/openapi.json"]
        seen += [(await tell("GET", place)).content for place in places]
        await tell("DELETE", path)
        seen.append((await client.get(path)).content)
        async for line in events.aiter_lines():
            seen.append(line.encode())
            if "sandbox.released" in line:
                break
        seen += _files(tmp_path)
    seen += _files(tmp_path)
    assert any(claimed["id"].encode() in part for part in seen), "else nothing was looked at"
    assert len(_files(tmp_path)) >= 1, "the journal"
    for text in (secret, own):
        assert not [part for part in seen if text.encode() in part]
        assert text not in caplog.text


def _files(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
