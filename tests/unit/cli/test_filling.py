"""What is shown of a pool that fills."""

from __future__ import annotations

import anyio
import pytest

from sandpool import LocalSandboxManager
from sandpool.cli.filling import Stage, failures, stages
from sandpool.models import ImagePull, PoolInfo, PoolSpec
from sandpool.testing import FakeBackend, ManualClock

SPEC = PoolSpec(name="pool", image="py", warm=4)
PULL = ImagePull(layers=2, layers_done=1, bytes_done=1 << 20, bytes_total=4 << 20)


def info(**counts: int | str) -> PoolInfo:
    fields = dict.fromkeys(
        ("ready", "creating", "leased", "resetting", "waiting", "created", "destroyed"), 0
    ) | dict.fromkeys(("create_failures", "hits", "misses"), 0)
    return PoolInfo.model_validate(
        {"name": "pool", "pool_id": "p", "spec": SPEC, "backend": "docker", "state": "open"}
        | fields
        | counts
    )


def test_before_a_pool_is_there_its_image_is_prepared() -> None:
    assert stages(SPEC, None, None) == [Stage("preparing py")]


def test_a_pull_is_told_in_bytes() -> None:
    told = "1.0 of 4.0 MiB, 1 of 2 layers"
    assert stages(SPEC, None, PULL) == [Stage("pull", 1 << 20, 4 << 20, told)]


def test_a_pull_of_which_nothing_is_known_has_no_end() -> None:
    nothing = ImagePull(layers=0, layers_done=0, bytes_done=0, bytes_total=0)
    assert stages(SPEC, None, nothing)[0].total is None


@pytest.mark.parametrize(
    ("counts", "made", "ready"),
    [
        ({"creating": 3, "starting": 2}, 2, 0),
        ({"creating": 2, "starting": 1, "ready": 2}, 3, 2),
        ({"ready": 9}, 4, 4),
    ],
)
def test_sandboxes_are_made_first_and_started_then(
    counts: dict[str, int], made: int, ready: int
) -> None:
    assert stages(SPEC, info(**counts), None) == [
        Stage("create", made, 4, f"{made} of 4"),
        Stage("start", ready, 4, f"{ready} of 4 ready"),
    ]


def test_a_pool_that_gets_another_image_fills_while_that_is_pulled() -> None:
    found = stages(SPEC, info(ready=4), PULL)
    assert [stage.name for stage in found] == ["pull", "create", "start"]


def test_failures_are_told_with_their_cause_once() -> None:
    failed = info(create_failures=3, last_error="CreateFailed: no\x1b room")
    text = "sandboxes could not be made: CreateFailed: no\N{REPLACEMENT CHARACTER} room"
    assert failures("pool", 1, failed) == f"pool pool: 2 {text}"
    assert failures("pool", 2, failed) == f"pool pool: a {text.replace('boxes', 'box')}"
    assert failures("pool", 3, failed) is None


@pytest.mark.anyio
async def test_an_image_that_is_being_got_is_listed_with_how_far_it_is() -> None:
    backend = FakeBackend()
    images = {"mine": "py"}
    manager = LocalSandboxManager(backends={"native": lambda: backend}, images=images)
    async with manager:
        await manager.create_pool(PoolSpec(name="pool", warm=0))
        backend.pulling = {"py": PULL}
        found = {image.name: image.pull for image in await manager.list_images()}
        assert (found["py"], found["mine"], found["host"]) == (PULL, PULL, None)


@pytest.mark.anyio
async def test_a_sandbox_that_is_made_and_not_yet_ready_is_counted_as_starting() -> None:
    clock = ManualClock()
    backend = FakeBackend(clock=clock, create_time=1.0)
    async with LocalSandboxManager(backends={"native": lambda: backend}, clock=clock) as manager:
        await manager.create_pool(PoolSpec(name="pool", warm=2))
        await anyio.wait_all_tasks_blocked()
        before = await manager.get_pool("pool")
        assert (before.creating, before.starting, before.ready) == (2, 2, 0)
        await clock.advance(1.0)
        await manager.wait_pool_warm("pool")
        after = await manager.get_pool("pool")
        assert (after.creating, after.starting, after.ready) == (0, 0, 2)
