"""What every `SandboxService` does, wherever its sandboxes live."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandpool.errors import (
    AcquireTimeout,
    ImageNotFound,
    InvalidSpec,
    InvalidToolArgument,
    LeaseOver,
    PoolExists,
    PoolInUse,
    PoolNotFound,
    PoolNotInitialized,
    SandboxDied,
    SandboxExists,
    SandboxLeased,
    SandboxNotActive,
    SandboxNotFound,
    ToolDisabled,
    ToolNotFound,
    UnknownSandboxType,
)
from sandpool.models import (
    ExecutionStatus,
    HealthCheck,
    PoolSpec,
    SandboxConfig,
    SandboxStatus,
    SandboxType,
)
from sandpool.service import Sandbox, SandboxService

pytestmark = pytest.mark.anyio

PYTHON = SandboxConfig(tools_config={"python_executor": {}})
NATIVE = SandboxType.NATIVE


def archive(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


async def warm_pool(service: SandboxService, name: str = "one", *, warm: int = 1) -> None:
    await service.create_pool(PoolSpec(name=name, warm=warm, max=warm + 1))
    await service.wait_pool_warm(name)


async def _claimed(service: SandboxService) -> Sandbox:
    await warm_pool(service)
    return await service.claim("one")


# --- sandboxes, by id -----------------------------------------------------------------------------


async def test_a_new_sandbox_runs_its_tools(service: SandboxService) -> None:
    sandbox_id = await service.create_sandbox(NATIVE, PYTHON)
    result = await service.execute_tool(sandbox_id, "python_executor", {"code": "print(40 + 2)"})
    assert (result.status, result.output) == (ExecutionStatus.SUCCESS, "42\n")


async def test_a_sandbox_has_the_id_that_was_asked_for(service: SandboxService) -> None:
    assert await service.create_sandbox(NATIVE, None, "mine") == "mine"
    with pytest.raises(SandboxExists):
        await service.create_sandbox(NATIVE, None, "mine")
    info = await service.get_sandbox_info("mine")
    assert info is not None
    assert (info.id, info.status, info.type) == ("mine", SandboxStatus.RUNNING, "native")


async def test_an_id_that_cannot_be_one_is_refused(service: SandboxService) -> None:
    with pytest.raises(InvalidSpec):
        await service.create_sandbox(NATIVE, None, "../etc")
    assert await service.list_sandboxes() == []


async def test_sandboxes_are_listed_by_status(service: SandboxService) -> None:
    first = await service.create_sandbox(NATIVE)
    second = await service.create_sandbox(NATIVE)
    assert await service.stop_sandbox(first)
    assert [info.id for info in await service.list_sandboxes()] == [first, second]
    stopped = await service.list_sandboxes(SandboxStatus.STOPPED)
    running = await service.list_sandboxes(status=SandboxStatus.RUNNING)
    assert ([info.id for info in stopped], [info.id for info in running]) == ([first], [second])


async def test_what_is_unknown_is_absent_and_no_failure(service: SandboxService) -> None:
    assert await service.get_sandbox_info("nobody") is None
    assert not await service.stop_sandbox("nobody")
    assert not await service.delete_sandbox("nobody")


async def test_what_is_unknown_cannot_be_used(service: SandboxService) -> None:
    with pytest.raises(SandboxNotFound, match="Sandbox nobody not found"):
        await service.execute_tool("nobody", "python_executor", {"code": "1"})
    with pytest.raises(SandboxNotFound):
        await service.get_sandbox_tools("nobody")
    with pytest.raises(SandboxNotFound):
        await service.put_archive("nobody", "/sandbox", archive())


async def test_a_stopped_sandbox_keeps_its_record_and_runs_nothing(
    service: SandboxService,
) -> None:
    sandbox_id = await service.create_sandbox(NATIVE, PYTHON)
    assert await service.stop_sandbox(sandbox_id)
    assert await service.stop_sandbox(sandbox_id)
    with pytest.raises(SandboxNotActive, match=r"is not active \(status: stopped\)"):
        await service.execute_tool(sandbox_id, "python_executor", {"code": "1"})
    assert await service.delete_sandbox(sandbox_id)
    assert await service.get_sandbox_info(sandbox_id) is None


async def test_tools_have_schemas_and_are_refused_by_name(service: SandboxService) -> None:
    tools = {"python_executor": {}, "shell_executor": {"enabled": False}}
    sandbox_id = await service.create_sandbox(NATIVE, {"tools_config": tools})
    schemas = await service.get_sandbox_tools(sandbox_id)
    assert list(schemas) == ["python_executor"]
    assert schemas["python_executor"]["function"]["parameters"]["required"] == ["code"]
    with pytest.raises(ToolNotFound, match="is not available"):
        await service.execute_tool(sandbox_id, "no_such_tool", {})
    with pytest.raises(ToolDisabled, match="is not enabled"):
        await service.execute_tool(sandbox_id, "shell_executor", {"command": "true"})


async def test_a_bad_argument_is_named(service: SandboxService) -> None:
    sandbox_id = await service.create_sandbox(NATIVE, PYTHON)
    for bad in ({"cod": "1"}, {}, {"code": 1}, {"code": "1", "timeout": "soon"}):
        with pytest.raises(InvalidToolArgument, match=r"cod|timeout"):
            await service.execute_tool(sandbox_id, "python_executor", dict(bad))


@pytest.mark.parametrize(
    ("sandbox_type", "config", "error"),
    [
        ("no_such_type", None, UnknownSandboxType),
        (SandboxType.DOCKER_NOTEBOOK, None, UnknownSandboxType),
        (NATIVE, {"no_such_field": 1}, InvalidSpec),
        (NATIVE, {"tools_config": {"no_such_tool": {}}}, ValueError),
        (NATIVE, {"tools_config": {"python_executor": {"no_such_setting": 1}}}, ValueError),
        (NATIVE, {"resource_limits": {"no_such_limit": 1}}, InvalidSpec),
        (NATIVE, {"image": "no-such-image"}, ImageNotFound),
    ],
)
async def test_bad_input_makes_nothing(
    service: SandboxService, sandbox_type: SandboxType, config: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await service.create_sandbox(sandbox_type, config)  # type: ignore[arg-type]
    assert await service.list_sandboxes() == []


async def test_a_cancelled_creation_leaves_nothing(service: SandboxService) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await service.create_sandbox(NATIVE, None, "gone")
    assert await service.get_sandbox_info("gone") is None
    assert await service.create_sandbox(NATIVE, None, "gone") == "gone"


async def test_an_archive_is_unpacked_where_it_is_wanted(service: SandboxService) -> None:
    sandbox_id = await service.create_sandbox(NATIVE, PYTHON)
    assert await service.put_archive(sandbox_id, "/sandbox/in/here", archive(a="alpha"))
    result = await service.execute_tool(
        sandbox_id, "python_executor", {"code": "print(open('/sandbox/in/here/a').read())"}
    )
    assert result.output == "alpha\n"
    with pytest.raises(InvalidSpec):
        await service.put_archive(sandbox_id, "", archive(a="alpha"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
async def test_an_archive_that_leads_out_of_its_directory_is_refused_whole(
    service: SandboxService, name: str
) -> None:
    sandbox = await _claimed(service)
    with pytest.raises(InvalidSpec):
        await service.put_archive(sandbox.id, "/sandbox/in", archive(**{"a": "a", name: "b"}))
    assert not await sandbox.files.exists("/sandbox/in/a")
    assert not await sandbox.files.exists("/sandbox/outside")
    with pytest.raises(InvalidSpec):
        await service.put_archive(sandbox.id, "/sandbox", b"this is no archive")


async def test_the_contents_of_a_directory_are_copied(
    service: SandboxService, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("beta")
    (tmp_path / "link").symlink_to("/etc/passwd")
    sandbox_id = await service.create_sandbox(NATIVE, PYTHON)
    assert await service.put_dir(sandbox_id, tmp_path, "/sandbox/copy")
    code = "print(open('/sandbox/copy/sub/b').read())\nopen('/sandbox/copy/link')"
    result = await service.execute_tool(sandbox_id, "python_executor", {"code": code})
    assert (result.output, result.success) == ("beta\n", False)
    with pytest.raises(FileNotFoundError):
        await service.put_dir(sandbox_id, tmp_path / "absent", "/sandbox/copy")


async def test_secrets_are_shown_by_name_only(service: SandboxService) -> None:
    config = SandboxConfig(env_vars={"TOKEN": "hunter2"})
    sandbox_id = await service.create_sandbox(NATIVE, config)
    await service.create_pool(PoolSpec(name="secret", warm=1, env={"TOKEN": "hunter2"}))
    await service.wait_pool_warm("secret")
    shown = [
        await service.get_sandbox_info(sandbox_id),
        await service.list_sandboxes(),
        await service.list_pools(),
        await service.get_stats(),
    ]
    assert "TOKEN" in repr(shown)
    assert "hunter2" not in repr(shown)


# --- the pool without a name ----------------------------------------------------------------------


async def test_a_pool_call_before_the_pool_says_what_to_do(service: SandboxService) -> None:
    with pytest.raises(PoolNotInitialized, match="call initialize_pool first"):
        await service.execute_tool_in_pool("python_executor", {"code": "1"})


async def test_the_output_of_a_pools_entrypoint_can_be_read(service: SandboxService) -> None:
    line = "echo starting up; echo with a warning >&2; sleep 1000"
    health = HealthCheck(kind="exec", command=("true",))
    spec = PoolSpec(name="loud", warm=1, max=1, entrypoint=("sh", "-c", line), health_check=health)
    await service.create_pool(spec)
    await service.wait_pool_warm("loud")
    (entry,) = await service.check_pool("loud")
    said = ""
    while "warning" not in said:
        await anyio.lowlevel.checkpoint()
        said = await service.get_sandbox_logs(entry.id)
    assert sorted(said.splitlines()) == ["starting up", "with a warning"]


async def test_images_are_listed_with_the_pools_that_use_them(service: SandboxService) -> None:
    assert [image.name for image in await service.list_images()] == ["host"]
    await warm_pool(service, "b", warm=0)
    await warm_pool(service, "a", warm=0)
    assert [image.pools for image in await service.list_images()] == [("a", "b")]


async def test_a_sandbox_without_entrypoint_has_no_logs(service: SandboxService) -> None:
    assert await service.get_sandbox_logs(await service.create_sandbox(NATIVE)) == ""
    with pytest.raises(SandboxNotFound):
        await service.get_sandbox_logs("no-such-sandbox")


async def test_a_pool_says_how_long_its_callers_have_waited(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="timed", warm=1, max=2))
    await service.wait_pool_warm("timed")
    fresh = await service.get_pool("timed")
    assert fresh.waits is None
    assert fresh.creations is not None
    assert fresh.creations.count == 1
    async with service.lease("timed"):
        pass
    used = await service.get_pool("timed")
    assert used.waits is not None
    assert used.waits.count == 1
    assert 0 <= used.waits.p50 <= used.waits.p99 <= used.waits.maximum


async def test_a_pool_has_its_members_and_runs_tools(service: SandboxService) -> None:
    ids = await service.initialize_pool(3, NATIVE, PYTHON)
    assert len(set(ids)) == 3
    stats = await service.get_stats()
    assert (stats["pool_size"], stats["pool_initialized"]) == (3, True)
    assert stats["total_sandboxes"] == 3
    result = await service.execute_tool_in_pool("python_executor", {"code": "print('hi')"})
    assert result.output == "hi\n"


async def test_a_pool_of_none_is_none(service: SandboxService) -> None:
    assert await service.initialize_pool(0, NATIVE, PYTHON) == []
    assert await service.initialize_pool(-1, NATIVE, PYTHON) == []
    assert not (await service.get_stats())["pool_initialized"]


async def test_equal_calls_mean_one_pool(service: SandboxService) -> None:
    first = await service.initialize_pool(2, NATIVE, PYTHON)
    again = await service.initialize_pool(2, NATIVE, PYTHON.model_copy(deep=True))
    assert set(first) == set(again)
    assert len(await service.initialize_pool(3, NATIVE, PYTHON)) == 3
    assert len(await service.list_pools()) == 1


async def test_equal_calls_at_one_time_mean_one_pool(service: SandboxService) -> None:
    answers: list[list[str]] = []

    async def initialize() -> None:
        answers.append(await service.initialize_pool(2, NATIVE, PYTHON))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(initialize)
    assert [set(answer) for answer in answers] == [set(answers[0])] * 4
    assert (await service.get_stats())["total_sandboxes"] == 2


async def test_a_call_goes_to_a_pool_that_has_the_tool(service: SandboxService) -> None:
    await service.initialize_pool(1, NATIVE, PYTHON)
    await service.initialize_pool(1, NATIVE, SandboxConfig(tools_config={"shell_executor": {}}))
    shell = await service.execute_tool_in_pool("shell_executor", {"command": "echo out"})
    python = await service.execute_tool_in_pool("python_executor", {"code": "print('out')"})
    assert (shell.output, python.output) == ("out\n", "out\n")
    with pytest.raises(ToolNotFound):
        await service.execute_tool_in_pool("file_operation", {})


async def test_more_callers_than_sandboxes_are_all_served(service: SandboxService) -> None:
    await service.initialize_pool(2, NATIVE, PYTHON)
    outputs: list[str] = []

    async def call(number: int) -> None:
        code = f"print({number})"
        result = await service.execute_tool_in_pool("python_executor", {"code": code})
        outputs.append(result.output)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(call, number)
    assert sorted(outputs) == [f"{number}\n" for number in range(8)]


async def test_a_failed_tool_is_a_result_and_the_pool_goes_on(service: SandboxService) -> None:
    await service.initialize_pool(1, NATIVE, PYTHON)
    failed = await service.execute_tool_in_pool("python_executor", {"code": "1 / 0"})
    assert failed.status is ExecutionStatus.ERROR
    assert "ZeroDivisionError" in (failed.error or "")
    result = await service.execute_tool_in_pool("python_executor", {"code": "print('on')"})
    assert result.output == "on\n"


async def test_a_caller_of_a_full_pool_gets_a_time_out(service: SandboxService) -> None:
    await service.initialize_pool(1, NATIVE, PYTHON)
    async with anyio.create_task_group() as group:
        slow = {"code": "import time; time.sleep(60)"}
        group.start_soon(service.execute_tool_in_pool, "python_executor", slow)
        while (await service.get_stats())["pool_busy"] == 0:
            await anyio.lowlevel.checkpoint()
        for timeout in (0, 0.01):
            with pytest.raises(
                AcquireTimeout, match=f"available sandbox from pool after {timeout}s"
            ):
                await service.execute_tool_in_pool(
                    "python_executor", {"code": "1"}, timeout=timeout
                )
        group.cancel_scope.cancel()


async def test_a_bad_argument_takes_no_sandbox(service: SandboxService) -> None:
    [sandbox_id] = await service.initialize_pool(1, NATIVE, PYTHON)
    with pytest.raises(InvalidToolArgument):
        await service.execute_tool_in_pool("python_executor", {"cod": "1"})
    info = await service.get_sandbox_info(sandbox_id)
    assert info is not None
    assert info.status is SandboxStatus.IDLE


async def test_a_pool_that_cannot_be_is_not_there(service: SandboxService) -> None:
    with pytest.raises(ImageNotFound):
        await service.initialize_pool(2, NATIVE, {"image": "no-such-image"})
    assert await service.list_pools() == []
    assert await service.list_sandboxes() == []


async def test_cleaning_up_leaves_nothing(service: SandboxService) -> None:
    await service.initialize_pool(2, NATIVE, PYTHON)
    await service.create_sandbox(NATIVE)
    await warm_pool(service)
    await service.cleanup_all_sandboxes()
    assert await service.list_sandboxes() == []
    assert await service.list_pools() == []
    with pytest.raises(PoolNotInitialized):
        await service.execute_tool_in_pool("python_executor", {"code": "1"})


# --- pools, by name -------------------------------------------------------------------------------


async def test_a_pool_fills_itself_and_says_how_it_stands(service: SandboxService) -> None:
    made = await service.create_pool(PoolSpec(name="two", warm=2, max=4))
    assert (made.name, made.spec.warm) == ("two", 2)
    await service.wait_pool_warm("two")
    info = await service.get_pool("two")
    assert (info.state, info.ready, info.leased, info.pool_id) == ("open", 2, 0, made.pool_id)
    assert [pool.name for pool in await service.list_pools()] == ["two"]


async def test_a_name_means_one_pool(service: SandboxService) -> None:
    await warm_pool(service)
    with pytest.raises(PoolExists):
        await service.create_pool(PoolSpec(name="one"))
    for call in (service.get_pool, service.delete_pool, service.wait_pool_warm, service.claim):
        with pytest.raises(PoolNotFound):
            await call("another")


async def test_a_lease_runs_things_and_ends(service: SandboxService) -> None:
    await warm_pool(service)
    async with service.lease("one") as sandbox:
        code = await sandbox.run_code("print(40 + 2)")
        command = await sandbox.exec(["echo", "a b"])
        shell = await sandbox.exec("echo a && echo b")
        await sandbox.files.write("data/x", "text")
        assert await sandbox.files.read_text("data/x") == "text"
        assert (await service.get_pool("one")).leased == 1
    assert (code.stdout, command.stdout, shell.stdout) == ("42\n", "a b\n", "a\nb\n")
    with pytest.raises(LeaseOver):
        await sandbox.run_code("1")
    with pytest.raises(LeaseOver):
        await sandbox.files.read("data/x")
    assert (await service.get_pool("one")).leased == 0


async def test_every_lease_meets_a_clean_sandbox(service: SandboxService) -> None:
    await warm_pool(service)
    seen: set[str] = set()
    for _ in range(3):
        async with service.lease("one") as sandbox:
            assert not await sandbox.files.exists("left-behind")
            await sandbox.files.write("left-behind", "mine")
            seen.add(sandbox.id)
    assert len(seen) == 3


async def test_a_lease_ends_with_an_exception_too(service: SandboxService) -> None:
    await warm_pool(service)
    with pytest.raises(ZeroDivisionError):
        async with service.lease("one"):
            _ = 1 / 0
    assert (await service.get_pool("one")).leased == 0


async def test_a_lent_sandbox_cannot_be_used_by_its_id(service: SandboxService) -> None:
    tools: dict[str, dict[str, Any]] = {"python_executor": {}}
    await service.create_pool(PoolSpec(name="one", warm=1, tools_config=tools))
    async with service.lease("one") as sandbox:
        for call in (
            service.execute_tool(sandbox.id, "python_executor", {"code": "1"}),
            service.put_archive(sandbox.id, "/sandbox", archive(a="a")),
        ):
            with pytest.raises(SandboxLeased):
                await call
        info = await service.get_sandbox_info(sandbox.id)
        assert info is not None
        assert info.status is SandboxStatus.BUSY


async def test_a_waiting_sandbox_cannot_be_used_by_its_id(service: SandboxService) -> None:
    [sandbox_id] = await service.initialize_pool(1, NATIVE, PYTHON)
    with pytest.raises(SandboxLeased):
        await service.execute_tool(sandbox_id, "python_executor", {"code": "1"})


async def test_a_claimed_sandbox_is_its_owners_by_id(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1, tools_config={"python_executor": {}}))
    sandbox = await service.claim("one")
    await sandbox.files.write("x", "mine")
    result = await service.execute_tool(
        sandbox.id, "python_executor", {"code": "print(open('x').read())"}
    )
    assert result.output == "mine\n"
    assert await service.delete_sandbox(sandbox.id)
    with pytest.raises((LeaseOver, SandboxDied)):
        await sandbox.run_code("1")
    assert await service.get_sandbox_info(sandbox.id) is None


async def test_what_a_claim_brings_reaches_only_its_sandbox(service: SandboxService) -> None:
    await warm_pool(service, warm=2)
    mine = await service.claim("one", env={"TOKEN": "hunter2"}, cwd="/tmp")
    other = await service.claim("one")
    code = "import os; print(os.environ.get('TOKEN'), os.getcwd())"
    assert (await mine.run_code(code)).stdout == "hunter2 /tmp\n"
    assert (await other.run_code(code)).stdout == "None /sandbox\n"
    shown = repr([await service.list_sandboxes(), await service.list_pools(), mine])
    assert "hunter2" not in shown


async def test_a_claimed_sandbox_that_reaches_its_end_says_so(service: SandboxService) -> None:
    await warm_pool(service)
    sandbox = await service.claim("one", lifetime=0.1)
    assert sandbox.remaining is not None
    assert sandbox.remaining <= 0.1

    async def run_on() -> None:
        while True:
            await sandbox.run_code("print(1)")

    with pytest.raises(SandboxDied) as died:
        await run_on()
    assert died.value.reason == "expired"
    with pytest.raises(SandboxDied, match="end of its life"):
        await sandbox.files.exists("x")
    while await service.get_sandbox_info(sandbox.id) is not None:
        await anyio.lowlevel.checkpoint()
    with pytest.raises(SandboxDied):
        await sandbox.run_code("print(1)")


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"NOT A NAME": "x"}},
        {"env": {"X": "\0"}},
        {"cwd": "relative"},
        {"lifetime": -1.0},
        {"timeout": float("nan")},
    ],
)
async def test_a_bad_claim_takes_nothing(
    service: SandboxService, options: dict[str, object]
) -> None:
    await warm_pool(service)
    with pytest.raises(InvalidSpec):
        await service.claim("one", **options)  # type: ignore[arg-type]
    info = await service.get_pool("one")
    assert (info.ready, info.leased, info.created) == (1, 0, 1)


async def test_a_claim_waits_no_longer_than_it_says(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1, max=1))
    await service.claim("one")
    with pytest.raises(AcquireTimeout):
        await service.claim("one", timeout=0.01)
    with pytest.raises(AcquireTimeout):
        async with service.lease("one", timeout=0):
            pass


async def test_a_pool_with_leases_is_deleted_only_by_force(service: SandboxService) -> None:
    await warm_pool(service)
    sandbox = await service.claim("one")
    with pytest.raises(PoolInUse):
        await service.delete_pool("one")
    assert (await sandbox.run_code("print(1)")).stdout == "1\n"
    await service.delete_pool("one", force=True)
    with pytest.raises((LeaseOver, SandboxDied)):
        await sandbox.run_code("1")
    assert await service.list_pools() == []
    assert await service.list_sandboxes() == []


async def test_a_deleted_pools_name_can_be_used_again(service: SandboxService) -> None:
    await warm_pool(service)
    await service.delete_pool("one")
    await warm_pool(service)
    assert (await service.get_pool("one")).ready == 1


async def test_a_pool_takes_a_new_size(service: SandboxService) -> None:
    await warm_pool(service)
    info = await service.update_pool("one", PoolSpec(name="one", warm=3, max=5))
    assert info.spec.warm == 3
    await service.wait_pool_warm("one")
    after = await service.get_pool("one")
    assert (after.ready, after.created, after.destroyed) == (3, 3, 0)


async def test_a_pool_that_makes_other_sandboxes_replaces_its_idle_ones(
    service: SandboxService,
) -> None:
    await warm_pool(service)
    old = await service.claim("one")
    await service.update_pool("one", PoolSpec(name="one", warm=1, max=4, env={"NEW": "yes"}))
    code = "import os; print(os.environ.get('NEW'))"
    new = await service.claim("one")
    assert (await old.run_code(code)).stdout == "None\n"
    assert (await new.run_code(code)).stdout == "yes\n"


async def test_a_definition_that_was_read_can_be_written_back(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1, env={"TOKEN": "hunter2"}))
    shown = (await service.get_pool("one")).spec
    await service.update_pool("one", shown.model_copy(update={"warm": 2}))
    await service.wait_pool_warm("one")
    async with service.lease("one") as sandbox:
        assert (await sandbox.run_code("import os; print(os.environ['TOKEN'])")).stdout == (
            "hunter2\n"
        )


async def test_a_pool_keeps_its_name(service: SandboxService) -> None:
    await warm_pool(service)
    with pytest.raises(InvalidSpec):
        await service.update_pool("one", PoolSpec(name="two"))


async def test_waiters_are_served_as_they_came(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1, max=1))
    order: list[int] = []

    async def call(number: int) -> None:
        async with service.lease("one"):
            order.append(number)

    async with anyio.create_task_group() as group, service.lease("one"):
        for number in range(5):
            group.start_soon(call, number)
            while (await service.get_pool("one")).waiting <= number:
                await anyio.lowlevel.checkpoint()
    assert order == list(range(5))


async def test_a_cancelled_borrower_costs_the_pool_nothing(service: SandboxService) -> None:
    await warm_pool(service)
    for _ in range(3):
        async with anyio.create_task_group() as group:
            started = anyio.Event()

            async def hold(sandbox_started: anyio.Event = started) -> None:
                async with service.lease("one") as sandbox:
                    sandbox_started.set()
                    await sandbox.run_code("import time; time.sleep(60)")

            group.start_soon(hold)
            await started.wait()
            group.cancel_scope.cancel()
    await service.wait_pool_warm("one")
    info = await service.get_pool("one")
    assert (info.ready, info.leased, info.waiting) == (1, 0, 0)


async def test_a_handle_is_a_sandbox_with_an_id_a_type_and_a_status(
    service: SandboxService,
) -> None:
    await warm_pool(service)

    def describe(sandbox: Sandbox) -> tuple[str, SandboxType, SandboxStatus]:
        return sandbox.id, sandbox.sandbox_type, sandbox.status

    async with service.lease("one") as sandbox:
        await sandbox.ping()
        assert describe(sandbox) == (sandbox.id, NATIVE, SandboxStatus.BUSY)
