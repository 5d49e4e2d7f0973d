"""From a sandbox type to a sandbox: ours, and those that somebody has written."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxConfig, SandboxType
from sandpool.enclave import (
    ExecutionStatus,
    Sandbox,
    SandboxFactory,
    SandboxStatus,
    Tool,
    ToolFactory,
    ToolResult,
    register_sandbox,
    register_tool,
)
from sandpool.errors import (
    ImageNotFound,
    InvalidSpec,
    SandboxNotActive,
    ToolNotFound,
    UnknownSandboxType,
    Unsupported,
)
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.testing import FakeBackend

DUMMY = SandboxType.DUMMY
ECHO = SandboxConfig(tools_config={"echo": {}})


class Dummy(Sandbox):
    """A sandbox of somebody else's: it notes what happens to it."""

    made: list[Dummy]

    def __init__(self, config: SandboxConfig, sandbox_id: str | None = None) -> None:
        super().__init__(config, sandbox_id)
        self.log: list[str] = []
        self.archive: tuple[str, bytes] | None = None
        type(self).made.append(self)

    @property
    def sandbox_type(self) -> SandboxType:
        return DUMMY

    async def start(self) -> None:
        self.log.append("start")
        self.update_status(SandboxStatus.RUNNING)

    async def stop(self) -> None:
        self.log.append("stop")
        self.update_status(SandboxStatus.STOPPED)

    async def cleanup(self) -> None:
        self.log.append("cleanup")

    async def get_execution_context(self) -> None:
        return None

    async def put_archive(self, target_dir: str, data: bytes) -> bool:
        self.archive = target_dir, data
        return True


class Echo(Tool):
    """A tool that needs nothing of a sandbox."""

    async def execute(self, sandbox_context: Any, text: str) -> ToolResult:
        """Say it again."""
        return ToolResult(
            tool_name=self.name, status=ExecutionStatus.SUCCESS, output=f"{text} {text}"
        )


@pytest.fixture(autouse=True)
def own_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register what it likes, for itself alone."""
    for factory in (SandboxFactory, ToolFactory):
        monkeypatch.setattr(factory, "_classes", dict(vars(factory)["_classes"]))
    Dummy.made = []
    register_tool("echo")(Echo)


def test_a_native_sandbox_is_made_and_not_started() -> None:
    made = SandboxFactory.create_sandbox("native", {"env_vars": {"A": "1"}}, "chosen")
    assert isinstance(made, LocalSandbox)
    assert (made.id, made.status) == ("chosen", SandboxStatus.INITIALIZING)
    assert made.spec.env == {"A": "1"}


def test_a_type_that_nobody_registered_names_those_there_are() -> None:
    with pytest.raises(UnknownSandboxType, match=r"dummy.*available: native"):
        SandboxFactory.create_sandbox(DUMMY)
    with pytest.raises(UnknownSandboxType, match="'vm'"):
        SandboxFactory.create_sandbox("vm")


def test_a_wrong_configuration_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InvalidSpec, match="imgae"):
        SandboxFactory.create_sandbox("native", {"imgae": "host"})
    with pytest.raises(ImageNotFound, match="some:image"):
        SandboxFactory.create_sandbox("native", {"image": "some:image"})


def test_an_image_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDPOOL_IMAGES", "some:image=/srv/root, other=host")
    made = SandboxFactory.create_sandbox("native", {"image": "some:image"})
    assert isinstance(made, LocalSandbox)
    assert made.spec.image == "/srv/root"


def test_a_registered_class_is_made_from_then_on() -> None:
    assert register_sandbox("dummy")(Dummy) is Dummy
    assert DUMMY in SandboxFactory.get_available_types()
    made = SandboxFactory.create_sandbox(DUMMY, ECHO, "chosen")
    assert isinstance(made, Dummy)
    assert (made.id, made.log) == ("chosen", [])


def test_only_a_sandbox_can_be_registered() -> None:
    with pytest.raises(InvalidSpec, match="subclass of Sandbox"):
        SandboxFactory.register_sandbox(DUMMY, dict)  # type: ignore[arg-type]
    assert DUMMY not in SandboxFactory.get_available_types()


# --- somebody else's sandboxes, in our managers ---------------------------------------------------


@pytest.mark.anyio
async def test_a_manager_runs_tools_in_a_sandbox_of_somebody_elses() -> None:
    register_sandbox(DUMMY)(Dummy)
    async with LocalSandboxManager(backends={"native": FakeBackend}) as manager:
        sandbox_id = await manager.create_sandbox(DUMMY, ECHO)
        said = await manager.execute_tool(sandbox_id, "echo", {"text": "a"})
        assert said.output == "a a"
        with pytest.raises(ToolNotFound):
            await manager.execute_tool(sandbox_id, "python_executor", {"code": "1"})
        assert list(await manager.get_sandbox_tools(sandbox_id)) == ["echo"]
        info = await manager.get_sandbox_info(sandbox_id)
        assert info is not None
        assert (info.type, info.status) == ("dummy", SandboxStatus.RUNNING)
        assert await manager.stop_sandbox(sandbox_id)
        with pytest.raises(SandboxNotActive):
            await manager.execute_tool(sandbox_id, "echo", {"text": "a"})
    [made] = Dummy.made
    assert made.log == ["start", "stop", "stop", "cleanup"]


@pytest.mark.anyio
async def test_a_pool_of_somebody_elses_sandboxes_is_renewed_and_emptied() -> None:
    register_sandbox(DUMMY)(Dummy)
    async with LocalSandboxManager(backends={}, recycle="reset") as manager:
        [member] = await manager.initialize_pool(1, DUMMY, ECHO)
        for text in "ab":
            result = await manager.execute_tool_in_pool("echo", {"text": text}, timeout=5)
            assert result.output == f"{text} {text}"
        assert [info.id for info in await manager.list_sandboxes()] == [member]
    started = [made for made in Dummy.made if made.log]
    assert [made.id for made in started] == [member]
    assert started[0].log.count("start") == started[0].log.count("stop") >= 3
    assert started[0].log[-2:] == ["stop", "cleanup"]


@pytest.mark.anyio
async def test_a_class_that_cannot_start_leaves_no_id() -> None:
    class Broken(Dummy):
        async def start(self) -> None:
            self.log.append("start")
            raise RuntimeError("out of order")

    register_sandbox(DUMMY)(Broken)
    async with LocalSandboxManager(backends={}) as manager:
        with pytest.raises(RuntimeError, match="out of order"):
            await manager.create_sandbox(DUMMY, sandbox_id="x")
        assert await manager.list_sandboxes() == []
    assert Dummy.made[0].log[-2:] == ["stop", "cleanup"]


@pytest.mark.anyio
async def test_somebody_elses_sandboxes_are_lent_by_tools_only() -> None:
    register_sandbox(DUMMY)(Dummy)
    async with LocalSandboxManager(backends={}) as manager:
        await manager.initialize_pool(1, DUMMY, ECHO)
        [pool] = await manager.list_pools()
        with pytest.raises(Unsupported, match="execute_tool_in_pool"):
            async with manager.lease(pool.name):
                raise AssertionError("nothing was lent")
        assert (await manager.execute_tool_in_pool("echo", {"text": "a"}, 5)).output == "a a"
        with pytest.raises(UnknownSandboxType):
            await manager.create_pool(PoolSpec(name="native"))


@pytest.mark.anyio
async def test_a_directory_reaches_a_sandbox_that_takes_only_archives(tmp_path: Path) -> None:
    register_sandbox(DUMMY)(Dummy)
    (tmp_path / "f").write_text("abc")
    async with SandboxFactory.create_sandbox(DUMMY) as made:
        assert isinstance(made, Dummy)
        assert await made.put_dir(tmp_path, "/t")
        assert made.archive is not None
        target, data = made.archive
        with tarfile.open(fileobj=io.BytesIO(data)) as found:
            assert (target, found.getnames()) == ("/t", ["f"])
        await made.put_file("/a/b", "ü", encoding="latin-1")
        target, data = made.archive
        with tarfile.open(fileobj=io.BytesIO(data)) as found:
            content = found.extractfile("b")
            assert content is not None
            assert (target, content.read()) == ("/a", b"\xfc")
        with pytest.raises(Unsupported, match="no commands"):
            await made.execute_command("true")
    assert made.log == ["start", "stop", "cleanup"]
