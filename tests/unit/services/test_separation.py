"""What sandboxes say and what their manager says are two things, and so are two pools."""

from __future__ import annotations

import logging

import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxType
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio

SAID = "a word from inside"


def web(name: str) -> PoolSpec:
    """Return the definition of a pool of servers that say something before they serve."""
    return PoolSpec(
        name=name,
        setup=("echo from the setup",),
        entrypoint=("sh", "-c", f"echo {SAID}; python3 -m http.server 8080"),
        ports=(8080,),
        warm=2,
    )


async def test_m1_the_sandboxes_of_a_pool_are_listed_apart_from_all_others() -> None:
    async with LocalSandboxManager(backends={"native": FakeBackend}) as manager:
        await manager.create_sandbox(SandboxType.NATIVE)
        for name in ("one", "two"):
            await manager.create_pool(web(name))
            await manager.wait_pool_warm(name)
        claimed = await manager.claim("one")
        await manager.wait_pool_warm("one")
        one, two = [
            {entry.id for entry in await manager.check_pool(name)} for name in ("one", "two")
        ]
        assert (len(one), len(two)) == (2, 2)
        assert not one & two
        assert claimed.id not in one


async def test_m1_the_log_of_a_sandbox_is_its_own_and_not_its_managers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with LocalSandboxManager(backends={"native": FakeBackend}) as manager:
        await manager.create_pool(web("one"))
        sandbox = await manager.claim("one")
        said = await manager.get_sandbox_logs(sandbox.id)
        await manager.delete_sandbox(sandbox.id)
    assert said.splitlines() == [SAID, "Serving HTTP on port 8080"]
    assert SAID not in caplog.text
    assert "Serving HTTP" not in caplog.text
