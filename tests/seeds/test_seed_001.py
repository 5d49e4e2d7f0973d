"""The guide's program on pools, with only its import and its image changed."""

# ruff: noqa: T201 - the guide prints, and what it prints is looked at

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandpool import SandboxClient
from sandpool.errors import PoolInUse, PoolNotFound
from sandpool.manager.backends import BackendFactory
from sandpool.testing import FakeBackend

KINDS = [
    pytest.param("fake", id="fake"),
    pytest.param("native", id="native", marks=pytest.mark.namespaces),
]


@pytest.fixture(params=KINDS)
def client(
    request: pytest.FixtureRequest, native_backend: BackendFactory
) -> Iterator[SandboxClient]:
    make = FakeBackend if request.param == "fake" else native_backend
    with SandboxClient(backends={"native": make}) as client:
        yield client


def test_the_guides_program_runs(client: SandboxClient, capsys: pytest.CaptureFixture[str]) -> None:
    pool = client.create_pool(
        image="host",
        cpus=1.0,
        memory_mb=512,
        ephemeral_disk_mb=1024,
        warm_containers=3,  # Keep 3 containers warm and ready
    )
    print(f"Pool ID: {pool.pool_id}")

    # Create sandbox from pool - starts instantly
    sandbox = client.create(pool_id=pool.pool_id)
    print(f"Sandbox ID: {sandbox.sandbox_id}")

    pools = client.list_pools()
    for pool in pools:
        print(f"{pool.pool_id}: {pool.image} ({pool.warm_containers} warm)")

    pool_info = client.get_pool(pool.pool_id)
    print(f"Image: {pool_info.image}")
    print(f"Warm containers: {pool_info.warm_containers}")
    print(f"Max containers: {pool_info.max_containers}")

    updated_pool = client.update_pool(
        pool_id=pool.pool_id,
        image="host",
        warm_containers=5,  # Increase warm containers
        max_containers=20,  # Set a ceiling
    )
    assert (updated_pool.warm_containers, updated_pool.max_containers) == (5, 20)

    # A pool cannot be deleted while it has active sandboxes.
    with pytest.raises(PoolInUse):
        client.delete_pool(pool.pool_id)
    sandbox.terminate()
    client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFound):
        client.get_pool(pool.pool_id)

    assert capsys.readouterr().out == (
        f"Pool ID: {pool.pool_id}\n"
        f"Sandbox ID: {sandbox.sandbox_id}\n"
        f"{pool.pool_id}: host (3 warm)\n"
        "Image: host\n"
        "Warm containers: 3\n"
        "Max containers: None\n"
    )


def test_a_pool_scales_between_its_warm_target_and_its_ceiling(client: SandboxClient) -> None:
    pool = client.create_pool(
        image="host",
        warm_containers=2,  # Always keep 2 containers ready
        max_containers=3,  # Never exceed 3 total containers
    )
    client.wait_pool_warm(pool.pool_id)
    taken = [client.create(pool_id=pool.pool_id)]
    client.wait_pool_warm(pool.pool_id)  # a replacement has been warmed
    taken += [client.create(pool_id=pool.pool_id) for _ in range(2)]
    state = client.get_pool(pool.pool_id)
    assert (state.active, state.ready, state.starting) == (3, 0, 0)
    for sandbox in taken:
        assert sandbox.run("echo", ["here"]).stdout == "here\n"
        sandbox.terminate()
    client.wait_pool_warm(pool.pool_id)
    state = client.get_pool(pool.pool_id)
    assert (state.active, state.ready, state.starting) == (0, 2, 0)
