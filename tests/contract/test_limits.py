"""Limits that a tenant asks for at the hand-over: they hold, or the claim says why they cannot."""

from __future__ import annotations

from dataclasses import fields as fields_of

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sandpool.backends.base import Limits
from sandpool.backends.native.cgroups import find
from sandpool.errors import FileFailed, InvalidSpec, SandpoolError, Unsupported
from sandpool.models import LimitChange, PoolSpec, Recycle
from sandpool.service import Sandbox, SandboxService
from tests.greedy import LITTER, OPEN

pytestmark = pytest.mark.anyio


async def _can_fill(sandbox: Sandbox) -> bool:
    try:
        await sandbox.files.write("/tmp/f", bytes(6 << 20))
    except FileFailed:
        return False
    return True


@pytest.fixture
async def pool(service: SandboxService) -> SandboxService:
    await _make_pool(service)
    return service


@pytest.fixture
async def process_pool(process_service: SandboxService) -> SandboxService:
    await _make_pool(process_service)
    return process_service


async def _make_pool(
    service: SandboxService, recycle: Recycle = "fresh", max_size: int = 3
) -> None:
    most = LimitChange(memory_mb=600, open_files=300, inodes=900)
    spec = PoolSpec(
        name="one",
        warm=1,
        max=max_size,
        memory_mb=300,
        disk_mb=16,
        inodes=500,
        open_files=100,
        recycle=recycle,
        max_limits=most,
    )
    await service.create_pool(spec)
    await service.wait_pool_warm("one")


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
        with pytest.raises(Unsupported, match="disk_mb"):
            await pool.claim("one", limits=LimitChange(disk_mb=4))
        return
    assert not await _has_room(pool, LimitChange(disk_mb=4))
    assert await _has_room(pool, None)


async def test_a_borrower_may_have_limits_too(pool: SandboxService, is_docker: bool) -> None:
    if is_docker:
        pytest.skip("disk_mb of containers cannot be changed")
    async with pool.lease("one", limits=LimitChange(disk_mb=4)) as sandbox:
        assert not await _can_fill(sandbox)
    async with pool.lease("one") as sandbox:
        assert await _can_fill(sandbox)


@pytest.mark.parametrize(
    "limits",
    [
        LimitChange(memory_mb=601),
        LimitChange(disk_mb=17),
        LimitChange(cpus=1.5, memory_mb=64),
        LimitChange(inodes=901),
        LimitChange(open_files=301, inodes=100),
    ],
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


@pytest.mark.parametrize(
    "limits",
    [
        LimitChange(memory_mb=128),
        LimitChange(memory_mb=600),
        LimitChange(pids=40),
        LimitChange(open_files=50),
        LimitChange(open_files=300, memory_mb=128),
    ],
)
async def test_the_sandboxs_info_shows_what_its_tenant_has(
    pool: SandboxService, limits: LimitChange
) -> None:
    sandbox = await pool.claim("one", limits=limits)
    info = await pool.get_sandbox_info(sandbox.id)
    assert info is not None
    shown = info.config["resource_limits"]
    assert shown == {**shown, "memory_mb": 300, "open_files": 100, "pids": 128, **limits.given()}


async def test_processor_time_is_changed_where_something_holds_it_and_refused_elsewhere(
    pool: SandboxService, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    limits = LimitChange(cpus=0.5)
    is_held = any(name in kind for name in ("fake", "simulated", "docker"))
    if is_held or "cpu" in find().controllers:
        await pool.claim("one", limits=limits)
        return
    with pytest.raises(Unsupported, match="limits: cpus"):
        await pool.claim("one", limits=limits)
    assert (await pool.get_pool("one")).leased == 0


async def _printed(pool: SandboxService, code: str, limits: LimitChange | None) -> int:
    """What a borrower with these limits finds out."""
    async with pool.lease("one", limits=limits) as sandbox:
        result = await sandbox.run_code(code, timeout=30)
    assert result.exit_code == 0, result.stderr
    return int(result.stdout)


@pytest.mark.parametrize("files", [30, 300])
async def test_open_files_are_one_tenants_and_the_next_ones_are_the_pools(
    process_pool: SandboxService, files: int
) -> None:
    assert await _printed(process_pool, OPEN, LimitChange(open_files=files)) == files
    assert await _printed(process_pool, OPEN, None) == 100


@pytest.mark.parametrize("inodes", [200, 900])
async def test_inodes_are_one_tenants_and_the_next_ones_are_the_pools(
    process_pool: SandboxService, inodes: int, is_docker: bool
) -> None:
    limits = LimitChange(inodes=inodes)
    if is_docker:
        with pytest.raises(Unsupported, match="inodes"):
            await _printed(process_pool, LITTER, limits)
        return
    assert inodes - 50 < await _printed(process_pool, LITTER, limits) < inodes
    assert 450 < await _printed(process_pool, LITTER, None) < 500


async def test_a_sandbox_that_is_used_again_never_goes_on_with_one_tenants_limits(
    process_service: SandboxService,
) -> None:
    await _make_pool(process_service, recycle="reuse")
    async with process_service.lease("one") as sandbox:
        first = sandbox.id
    # Held from its last tenant: it has had runs, and what was forked ahead is not from its start.
    async with process_service.lease("one", limits=LimitChange(open_files=30)) as sandbox:
        assert sandbox.id == first
        assert (await sandbox.run_code(OPEN)).stdout == "30\n"
    async with process_service.lease("one") as sandbox:
        assert sandbox.id != first
        assert (await sandbox.run_code(OPEN)).stdout == "100\n"


async def test_a_tenant_cannot_have_fewer_files_than_its_sandbox_has(
    process_service: SandboxService, is_docker: bool
) -> None:
    if is_docker:
        pytest.skip("inodes of containers cannot be changed")
    await _make_pool(process_service, recycle="reuse", max_size=1)
    async with process_service.lease("one") as sandbox:
        first = sandbox.id
        await sandbox.exec(["sh", "-c", "touch $(seq 200)"])
    with pytest.raises(InvalidSpec, match="already"):
        await process_service.claim("one", limits=LimitChange(inodes=100, open_files=30))
    async with process_service.lease("one") as sandbox:
        assert sandbox.id != first  # what a refusal has left is given to nobody


def test_every_limit_of_a_sandbox_can_be_asked_for_at_its_hand_over() -> None:
    names = {field.name for field in fields_of(Limits)}
    assert set(LimitChange.model_fields) == names
    assert names <= set(PoolSpec.model_fields)
    spec, limits = PoolSpec(name="one"), Limits()
    assert {name: getattr(spec, name) for name in names} == {
        name: getattr(limits, name) for name in names
    }


@given(
    st.sampled_from(sorted(LimitChange.model_fields)),
    st.integers(-10, 10**10) | st.floats() | st.text(max_size=3),
)
def test_what_one_tenant_may_ask_for_is_what_a_pool_may_have(name: str, value: object) -> None:
    def is_taken(kind: type[LimitChange | PoolSpec], **more: object) -> bool:
        try:
            kind.model_validate({name: value, **more})
        except ValidationError:
            return False
        return True

    assert is_taken(LimitChange) == is_taken(PoolSpec, name="one")


def test_the_most_is_no_less_than_what_all_have() -> None:
    with pytest.raises(ValueError, match="max_limits"):
        PoolSpec(name="one", memory_mb=300, max_limits=LimitChange(memory_mb=200))
    with pytest.raises(ValueError, match="max_limits"):
        PoolSpec(name="one", max_limits=LimitChange(open_files=1023))


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_mb": 0},
        {"cpus": 0},
        {"memory": 64},
        {"pids": 1.5},
        {"inodes": 63},
        {"open_files": 15},
        {"open_files": 1 << 21},
        {"openfiles": 64},
    ],
)
def test_a_misspelt_or_impossible_limit_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LimitChange.model_validate(fields)


async def test_a_limit_of_a_pool_that_is_not_there_is_of_no_use(service: SandboxService) -> None:
    with pytest.raises(SandpoolError):
        await service.claim("ghost", limits=LimitChange(disk_mb=4))
