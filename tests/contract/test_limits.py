"""Limits that a tenant asks for at the hand-over: they hold, or the claim says why they cannot."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sandpool.backends.native.cgroups import find
from sandpool.errors import FileFailed, InvalidSpec, SandpoolError, Unsupported
from sandpool.models import LimitChange, PoolSpec
from sandpool.service import Sandbox, SandboxService

pytestmark = pytest.mark.anyio


async def _can_fill(sandbox: Sandbox) -> bool:
    try:
        await sandbox.files.write("/tmp/f", bytes(6 << 20))
    except FileFailed:
        return False
    return True


@pytest.fixture
async def pool(service: SandboxService) -> SandboxService:
    most = LimitChange(memory_mb=600)
    spec = PoolSpec(name="one", warm=1, max=3, memory_mb=300, disk_mb=16, max_limits=most)
    await service.create_pool(spec)
    await service.wait_pool_warm("one")
    return service


async def _has_room(pool: SandboxService, limits: LimitChange | None) -> bool:
    """Whether a tenant with these limits can write 6 MiB."""
    sandbox = await pool.claim("one", limits=limits)
    try:
        return await _can_fill(sandbox)
    finally:
        await pool.delete_sandbox(sandbox.id)


@pytest.fixture
def is_docker(request: pytest.FixtureRequest) -> bool:
    return "docker" in request.node.callspec.id


async def test_a_claim_without_limits_has_the_pools(pool: SandboxService) -> None:
    assert await _has_room(pool, None)
    assert await _has_room(pool, LimitChange())
    assert await _has_room(pool, LimitChange(disk_mb=16))


async def test_a_lowered_limit_holds_for_its_tenant_alone(
    pool: SandboxService, is_docker: bool
) -> None:
    if is_docker:
        pytest.skip("those of containers cannot be changed")
    assert not await _has_room(pool, LimitChange(disk_mb=4))
    assert await _has_room(pool, None)


async def test_a_borrower_may_have_limits_too(pool: SandboxService, is_docker: bool) -> None:
    if is_docker:
        pytest.skip("those of containers cannot be changed")
    async with pool.lease("one", limits=LimitChange(disk_mb=4)) as sandbox:
        assert not await _can_fill(sandbox)
    async with pool.lease("one") as sandbox:
        assert await _can_fill(sandbox)


@pytest.mark.parametrize(
    "limits",
    [LimitChange(memory_mb=601), LimitChange(disk_mb=17), LimitChange(cpus=1.5, memory_mb=64)],
)
async def test_more_than_the_definition_allows_is_refused_and_takes_nothing(
    pool: SandboxService, limits: LimitChange
) -> None:
    with pytest.raises(InvalidSpec, match="max_limits"):
        await pool.claim("one", limits=limits)
    with pytest.raises(InvalidSpec, match="max_limits"):
        async with pool.lease("one", limits=limits):
            pass
    info = await pool.get_pool("one")
    assert (info.leased, info.ready) == (0, 1)


@pytest.mark.parametrize("memory_mb", [128, 600])
async def test_memory_is_changed_where_something_holds_it_and_refused_elsewhere(
    pool: SandboxService, memory_mb: int, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    can = "fake" in kind or ("docker" not in kind and "memory" in find().controllers)
    limits = LimitChange(memory_mb=memory_mb)
    if not can:
        with pytest.raises(Unsupported, match="limits"):
            await pool.claim("one", limits=limits)
        assert (await pool.get_pool("one")).leased == 0
        return
    sandbox = await pool.claim("one", limits=limits)
    info = await pool.get_sandbox_info(sandbox.id)
    assert info is not None
    assert info.config["resource_limits"]["memory_mb"] == memory_mb


def test_the_most_is_no_less_than_what_all_have() -> None:
    with pytest.raises(ValueError, match="max_limits"):
        PoolSpec(name="one", memory_mb=300, max_limits=LimitChange(memory_mb=200))


@pytest.mark.parametrize("fields", [{"memory_mb": 0}, {"cpus": 0}, {"memory": 64}, {"pids": 1.5}])
def test_a_misspelt_or_impossible_limit_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LimitChange.model_validate(fields)


async def test_a_limit_of_a_pool_that_is_not_there_is_of_no_use(service: SandboxService) -> None:
    with pytest.raises(SandpoolError):
        await service.claim("ghost", limits=LimitChange(disk_mb=4))
