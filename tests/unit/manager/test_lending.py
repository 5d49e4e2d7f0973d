"""The pools behind `initialize_pool`: which there are, and whom they serve."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxConfig, SandboxManagerConfig, SandboxType
from sandpool.errors import (
    AcquireTimeout,
    CreateFailed,
    InvalidSpec,
    InvalidToolArgument,
    NoCapacity,
    PoolDegraded,
    PoolNotInitialized,
    ToolNotFound,
    UnknownSandboxType,
)
from sandpool.models import ExecutionStatus, Recycle, ToolResult
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio

NATIVE = SandboxType.NATIVE
PYTHON = SandboxConfig(tools_config={"python_executor": {"timeout": 10_000}})
SHELL = SandboxConfig(tools_config={"shell_executor": {}})
ONE = {"code": "print(1)"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backend(clock: ManualClock) -> FakeBackend:
    return FakeBackend(clock=clock)


Managers = Callable[[Recycle], LocalSandboxManager]


@pytest.fixture
def new_manager(backend: FakeBackend, clock: ManualClock) -> Managers:
    def make(recycle: Recycle) -> LocalSandboxManager:
        return LocalSandboxManager(
            SandboxManagerConfig(timeout=30),
            backends={"native": lambda: backend},
            clock=clock,
            recycle=recycle,
        )

    return make


@pytest.fixture
async def manager(new_manager: Managers) -> AsyncIterator[LocalSandboxManager]:
    async with new_manager("fresh") as made:
        yield made


async def run(manager: LocalSandboxManager, code: str = "print(1)") -> ToolResult:
    return await manager.execute_tool_in_pool("python_executor", {"code": code}, timeout=30)


async def settled(clock: ManualClock) -> None:
    """Let the pools do everything that is due."""
    await clock.advance(1)


# --- which pools there are ------------------------------------------------------------------------


async def test_one_pool_for_each_kind_of_sandbox(manager: LocalSandboxManager) -> None:
    python = await manager.initialize_pool(1, NATIVE, PYTHON)
    shell = await manager.initialize_pool(1, NATIVE, SHELL)
    assert set(python).isdisjoint(shell)
    assert await manager.initialize_pool(1, NATIVE, PYTHON) == python
    assert [pool.name for pool in await manager.list_pools()] == ["shared", "shared-2"]


async def test_a_name_that_somebody_has_taken_is_left_alone(manager: LocalSandboxManager) -> None:
    await manager.create_pool(PoolSpec(name="shared", warm=0, max=1))
    await manager.initialize_pool(1, NATIVE, PYTHON)
    assert [pool.name for pool in await manager.list_pools()] == ["shared", "shared-2"]
    assert (await run(manager)).output == "1\n"


async def test_another_size_is_the_same_pool_with_that_size(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    first = await manager.initialize_pool(2, NATIVE, PYTHON)
    more = await manager.initialize_pool(3, NATIVE, PYTHON)
    assert len(more) == 3
    assert set(first) < set(more)
    await manager.initialize_pool(1, NATIVE, PYTHON)
    await settled(clock)
    [pool] = await manager.list_pools()
    assert (pool.spec.warm, pool.spec.max, pool.ready) == (1, 1, 1)
    assert len(await manager.list_sandboxes()) == 1


async def test_its_definition_belongs_to_initialize_pool(manager: LocalSandboxManager) -> None:
    await manager.initialize_pool(1, NATIVE, PYTHON)
    [pool] = await manager.list_pools()
    with pytest.raises(InvalidSpec, match="initialize_pool"):
        await manager.update_pool(pool.name, pool.spec)


async def test_a_deleted_pool_is_not_lent_from_and_can_be_had_again(
    manager: LocalSandboxManager,
) -> None:
    await manager.initialize_pool(1, NATIVE, PYTHON)
    await manager.delete_pool("shared")
    with pytest.raises(PoolNotInitialized, match="initialize_pool first"):
        await run(manager)
    await manager.initialize_pool(1, NATIVE, PYTHON)
    assert (await run(manager)).output == "1\n"


async def test_a_pool_larger_than_the_manager_may_be_is_refused_whole(
    backend: FakeBackend,
) -> None:
    settings = SandboxManagerConfig(max_sandboxes=2)
    async with LocalSandboxManager(settings, backends={"native": lambda: backend}) as manager:
        with pytest.raises(NoCapacity, match="max_sandboxes"):
            await manager.initialize_pool(3, NATIVE, PYTHON)
        assert await manager.list_pools() == []
    assert backend.created == 0


@pytest.mark.parametrize(
    ("kind", "config", "error"),
    [
        (NATIVE, SandboxConfig(tools_config={"nonsense": {}}), ToolNotFound),
        (NATIVE, {"imgae": "host"}, InvalidSpec),
        (SandboxType.DUMMY, {}, UnknownSandboxType),
    ],
)
async def test_what_its_sandboxes_cannot_be_leaves_no_pool(
    manager: LocalSandboxManager, kind: SandboxType, config: SandboxConfig, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await manager.initialize_pool(1, kind, config)
    assert await manager.list_pools() == []
    assert await manager.list_sandboxes() == []


async def test_a_pool_that_cannot_have_one_sandbox_is_not_left_behind(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    backend.fail_creates(1000, lambda: CreateFailed("no more processes"))
    told: list[str] = []

    async def initialize() -> None:
        with pytest.raises(PoolDegraded) as failed:
            await manager.initialize_pool(2, NATIVE, PYTHON)
        told.append(str(failed.value))

    async with anyio.create_task_group() as group:
        group.start_soon(initialize)
        while not told:
            await clock.advance(10)
    assert told == ["no sandbox could be made: no more processes"]
    assert await manager.list_pools() == []
    with pytest.raises(PoolNotInitialized):
        await run(manager)


async def test_a_pool_that_has_some_of_its_sandboxes_serves_says_what_failed_and_heals(
    manager: LocalSandboxManager,
    backend: FakeBackend,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = await manager.initialize_pool(1, NATIVE, PYTHON)
    causes = (f"fault {number}" for number in itertools.count(1))
    backend.fail_creates(1000, lambda: CreateFailed(next(causes)))
    found: list[str] = []

    async def initialize() -> None:
        found.extend(await manager.initialize_pool(3, NATIVE, PYTHON))

    async with anyio.create_task_group() as group:
        group.start_soon(initialize)
        while not found:
            await clock.advance(10)
    assert found == first
    stats = await manager.get_stats()
    count = stats["pool_create_failures"]
    assert (stats["pool_size"], stats["pool_target"]) == (1, 3)
    assert stats["pool_last_error"] == f"CreateFailed: fault {count}"
    for number in range(1, count + 1):
        cause = f"CreateFailed: fault {number}"
        assert f"pool shared: an item could not be made: {cause}" in caplog.messages
    assert any("has 1 of 3 sandboxes so far" in message for message in caplog.messages)
    backend.mend()
    while (await manager.get_stats())["pool_size"] < 3:
        await clock.advance(10)
    assert (await run(manager)).output == "1\n"


# --- cancellation ---------------------------------------------------------------------------------


async def test_a_cancelled_call_takes_along_the_pool_that_nobody_else_waits_for(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    backend.hang_creates(10)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.initialize_pool, 2, NATIVE, PYTHON)
        await anyio.wait_all_tasks_blocked()
        assert len(await manager.list_pools()) == 1
        group.cancel_scope.cancel()
    assert await manager.list_pools() == []
    assert await manager.list_sandboxes() == []
    assert backend.creating == 0
    backend.mend()
    assert len(await manager.initialize_pool(2, NATIVE, PYTHON)) == 2


async def test_a_cancelled_call_leaves_the_pool_to_another_that_waits_for_it(
    clock: ManualClock,
) -> None:
    slow = FakeBackend(clock=clock, create_time=5)
    results: list[list[str]] = []
    async with LocalSandboxManager(backends={"native": lambda: slow}, clock=clock) as manager:

        async def initialize() -> None:
            results.append(await manager.initialize_pool(1, NATIVE, PYTHON))

        async with anyio.create_task_group() as group:
            first = anyio.CancelScope()

            async def cancelled() -> None:
                with first:
                    await initialize()

            group.start_soon(cancelled)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(initialize)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await clock.advance(6)
        assert [len(ids) for ids in results] == [1]
        assert (await run(manager)).output == "1\n"
    assert slow.boxes == []


async def test_a_cancelled_tool_call_gives_its_sandbox_to_nobody(
    new_manager: Managers, clock: ManualClock
) -> None:
    async with new_manager("reuse") as manager:
        [first] = await manager.initialize_pool(1, NATIVE, PYTHON)
        async with anyio.create_task_group() as group:
            group.start_soon(run, manager, "import time; time.sleep(1000)")
            await anyio.wait_all_tasks_blocked()
            assert (await manager.get_stats())["pool_busy"] == 1
            group.cancel_scope.cancel()
        await settled(clock)
        [other] = [info.id for info in await manager.list_sandboxes()]
        assert other != first
        assert (await run(manager)).output == "1\n"


# --- what a sandbox is after a call ---------------------------------------------------------------


async def left(manager: LocalSandboxManager) -> str | None:
    """Leave a file, unless there is one, and return what was there."""
    code = "import os\nprint(os.path.exists('/tmp/left'))\nopen('/tmp/left', 'w').close()"
    result = await run(manager, code)
    assert result.status is ExecutionStatus.SUCCESS, result.error
    return str(result.output).strip()


@pytest.mark.parametrize(
    ("recycle", "found", "is_same"),
    [("fresh", "False", False), ("reset", "False", True), ("reuse", "True", True)],
)
async def test_what_is_left_for_the_next_caller_is_what_was_asked_for(
    recycle: Recycle, found: str, is_same: bool
) -> None:
    async with LocalSandboxManager(backends={"native": FakeBackend}, recycle=recycle) as manager:
        [first] = await manager.initialize_pool(1, NATIVE, PYTHON)
        assert await left(manager) == "False"
        await manager.wait_pool_warm("shared")
        assert await left(manager) == found
        await manager.wait_pool_warm("shared")
        [last] = [info.id for info in await manager.list_sandboxes()]
        assert (first == last) is is_same


async def test_members_that_are_used_again_are_lent_in_turn() -> None:
    backend = FakeBackend()
    async with LocalSandboxManager(
        backends={"native": lambda: backend}, recycle="reuse"
    ) as manager:
        order = await manager.initialize_pool(3, NATIVE, PYTHON)
        for number in range(6):
            await run(manager, f"open('/tmp/{number}', 'w').close()")
        for number in range(6):
            entry = await backend.box(order[number % 3]).stat_file(f"/tmp/{number}")
            assert entry.name == str(number)


async def test_a_member_that_dies_in_a_call_is_replaced(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    [first] = await manager.initialize_pool(1, NATIVE, PYTHON)
    failures: list[BaseException] = []

    async def call() -> None:
        try:
            await run(manager, "import time; time.sleep(1000)")
        except RuntimeError as died:
            failures.append(died)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        backend.box(first).die("oom")
    assert [getattr(died, "reason", None) for died in failures] == ["oom"]
    await settled(clock)
    assert (await run(manager)).output == "1\n"


# --- who is served --------------------------------------------------------------------------------


async def test_nothing_is_lent_before_there_is_a_pool(manager: LocalSandboxManager) -> None:
    with pytest.raises(PoolNotInitialized, match="initialize_pool first"):
        await run(manager)


async def test_a_pool_of_the_settings_is_made_at_the_first_call(backend: FakeBackend) -> None:
    settings = SandboxManagerConfig(
        pool_size=2, sandbox_config={"image": "host", "tools_config": {"python_executor": {}}}
    )
    kinds = {"native": lambda: backend, "docker": lambda: backend}
    async with LocalSandboxManager(settings, backends=kinds) as manager:
        assert (await manager.get_stats())["pool_initialized"] is False
        assert (await run(manager)).output == "1\n"
        stats = await manager.get_stats()
        assert (stats["pool_initialized"], stats["pool_target"]) == (True, 2)


async def test_a_call_that_is_wrong_takes_no_sandbox(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    await manager.initialize_pool(1, NATIVE, PYTHON)
    before = backend.created
    with pytest.raises(InvalidToolArgument, match="code"):
        await manager.execute_tool_in_pool("python_executor", {})
    with pytest.raises(ToolNotFound):
        await manager.execute_tool_in_pool("shell_executor", {"command": "true"})
    for timeout in (-1, float("nan")):
        with pytest.raises(InvalidSpec, match="timeout"):
            await manager.execute_tool_in_pool("python_executor", ONE, timeout)
    assert (backend.created, backend.destroyed) == (before, 0)


@pytest.mark.parametrize("timeout", [0, 2])
async def test_a_caller_waits_as_long_as_it_says_and_leaves_no_trace(
    manager: LocalSandboxManager, clock: ManualClock, timeout: float
) -> None:
    await manager.initialize_pool(1, NATIVE, PYTHON)
    ended: list[float] = []

    async def wait() -> None:
        with pytest.raises(AcquireTimeout, match=f"after {timeout}s"):
            await manager.execute_tool_in_pool("python_executor", ONE, timeout)
        ended.append(clock.now())

    async with anyio.create_task_group() as group:
        group.start_soon(run, manager, "import time; time.sleep(10)")
        await anyio.wait_all_tasks_blocked()
        begun = clock.now()
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert (await manager.get_stats())["pool_waiting"] == (1 if timeout else 0)
        await clock.advance(timeout)
        assert ended == [begun + timeout]
        assert (await manager.get_stats())["pool_waiting"] == 0
        await clock.advance(10)
    await settled(clock)
    assert (await run(manager)).output == "1\n"


async def test_a_caller_of_no_timeout_waits_as_long_as_the_settings_say(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await manager.initialize_pool(1, NATIVE, PYTHON)
    ended: list[float] = []

    async def wait() -> None:
        with pytest.raises(AcquireTimeout):
            await manager.execute_tool_in_pool("python_executor", ONE)
        ended.append(clock.now())

    async with anyio.create_task_group() as group:
        group.start_soon(run, manager, "import time; time.sleep(1000)")
        await anyio.wait_all_tasks_blocked()
        begun = clock.now()
        group.start_soon(wait)
        await clock.advance(29)
        assert ended == []
        await clock.advance(1)
        assert ended == [begun + 30]
        group.cancel_scope.cancel()


async def test_callers_are_served_as_they_came_one_to_a_sandbox(
    new_manager: Managers, clock: ManualClock
) -> None:
    async with new_manager("reset") as manager:
        await manager.initialize_pool(2, NATIVE, PYTHON)
        served: list[int] = []
        most_busy = 0

        async def call(number: int) -> None:
            nonlocal most_busy
            result = await run(manager, f"import time; time.sleep(1)\nprint({number})")
            served.append(int(str(result.output)))
            most_busy = max(most_busy, (await manager.get_stats())["pool_busy"])

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(call, number)
            await clock.advance(10)
        assert served == list(range(5))
        assert most_busy <= 2


async def test_a_call_goes_to_the_pool_that_has_a_free_sandbox(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    both = SandboxConfig(tools_config={"python_executor": {}, "shell_executor": {}})
    await manager.initialize_pool(1, NATIVE, PYTHON)
    await manager.initialize_pool(1, NATIVE, both)
    async with anyio.create_task_group() as group:
        group.start_soon(run, manager, "import time; time.sleep(10)")
        await anyio.wait_all_tasks_blocked()
        assert (await manager.execute_tool_in_pool("python_executor", ONE, 0)).output == "1\n"
        await clock.advance(10)


async def test_stopping_the_manager_ends_calls_in_progress_and_waiting(
    new_manager: Managers, backend: FakeBackend
) -> None:
    manager = new_manager("fresh")
    await manager.start()
    await manager.initialize_pool(1, NATIVE, PYTHON)
    errors: list[str] = []

    async def call() -> None:
        try:
            await run(manager, "import time; time.sleep(1000)")
        except RuntimeError as error:
            errors.append(type(error).__name__)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        await manager.stop()
    assert sorted(errors) == ["LeaseOver", "PoolClosed"]
    assert backend.boxes == []
