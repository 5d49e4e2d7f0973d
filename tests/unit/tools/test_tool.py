from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sandpool.errors import (
    FileMissing,
    InvalidSpec,
    InvalidToolArgument,
    LeaseOver,
    SandboxDied,
    ToolNotFound,
)
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import ExecutionStatus, SandboxConfig, SandboxType, ToolResult
from sandpool.service import Sandbox
from sandpool.testing import FakeBackend
from sandpool.tools import PythonExecutor, Tool, ToolFactory, register_tool

pytestmark = pytest.mark.anyio

BUILT_IN = {
    "python_executor": ["code", "timeout"],
    "shell_executor": ["command", "timeout"],
    "file_operation": ["operation", "file_path", "content", "encoding"],
    "notebook_executor": ["code", "timeout"],
    "multi_code_executor": ["language", "code", "files", "compile_timeout", "run_timeout"],
}


@register_tool("count_lines")
class CountLines(Tool):
    """Count the lines of a file."""

    async def execute(
        self, sandbox_context: Sandbox, *, path: str, at_most: int = 100
    ) -> ToolResult:
        text = await sandbox_context.files.read_text(path)
        return self.success(min(len(text.splitlines()), at_most), path=path)


class Failing(Tool):
    """Fail as told."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(name="failing")
        self.error = error

    async def execute(self, sandbox_context: Any, *args: Any, **params: Any) -> ToolResult:
        raise self.error


# Tools of one's own.


async def test_a_custom_tool_runs_in_a_sandbox_that_is_configured_with_it() -> None:
    config = SandboxConfig(tools_config={"count_lines": {}})
    async with LocalSandbox(config, backend=FakeBackend()) as sandbox:
        await sandbox.files.write("a", "1\n2\n")
        result = await sandbox.execute_tool("count_lines", {"path": "a"})
        assert (result.tool_name, result.output, result.metadata) == (
            "count_lines",
            2,
            {"path": "a"},
        )
        assert result.execution_time is not None
        with pytest.raises(InvalidToolArgument, match="unknown argument 'file'"):
            await sandbox.execute_tool("count_lines", {"file": "a"})


def test_a_custom_tool_gets_its_schema_from_its_signature() -> None:
    assert CountLines().schema == {
        "type": "function",
        "function": {
            "name": "count_lines",
            "description": "Count the lines of a file.",
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "at_most": {"type": "integer", "default": 100},
                },
                "required": ["path"],
                "additionalProperties": False,
            },
        },
    }


def test_a_custom_tool_can_say_everything_about_itself() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = CountLines(
        name="n", description="d", parameters=parameters, enabled=False, timeout=3, depth=2
    )
    assert (tool.name, tool.description, tool.parameters) == ("n", "d", parameters)
    assert (tool.enabled, tool.timeout, tool.settings) == (False, 3, {"depth": 2})


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidSpec, match="timeout"):
        CountLines(timeout=timeout)


def test_a_tool_without_required_types_runs_everywhere() -> None:
    tool = CountLines()
    assert tool.required_sandbox_type is None
    assert all(tool.is_compatible_with_sandbox(kind) for kind in SandboxType)


def test_a_tool_with_required_types_runs_where_one_of_them_does() -> None:
    tool = PythonExecutor()
    assert tool.required_sandbox_type is SandboxType.DOCKER
    can = [kind for kind in SandboxType if tool.is_compatible_with_sandbox(kind)]
    assert can == [SandboxType.NATIVE, SandboxType.DOCKER, SandboxType.DOCKER_NOTEBOOK]


# What a tool's failure becomes.


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "bad"),
        (KeyError(), "KeyError"),
        (FileMissing(2, "No such file", "/x"), "[Errno 2] No such file: '/x'"),
    ],
)
async def test_a_tools_own_failure_is_a_result(error: Exception, text: str) -> None:
    result = await Failing(error).run(None, {})
    assert (result.status, result.error) == (ExecutionStatus.ERROR, text)
    assert result.execution_time is not None


@pytest.mark.parametrize(
    "error", [SandboxDied("dead"), LeaseOver("over"), InvalidToolArgument("x")]
)
async def test_a_failure_that_is_not_the_tools_goes_to_the_caller(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await Failing(error).run(None, {})
    assert caught.value is error
    with pytest.raises(type(error)):
        await Failing(ExceptionGroup("tasks", [ValueError(), error])).run(None, {})


async def test_a_tool_that_takes_too_long_is_a_timeout() -> None:
    class Slow(Tool):
        async def execute(self, sandbox_context: Any, *args: Any, **params: Any) -> ToolResult:
            await anyio.sleep_forever()
            raise AssertionError

    result = await Slow(timeout=0.01).run(None, {})
    assert (result.status, result.error) == (
        ExecutionStatus.TIMEOUT,
        "Command timed out after 0.01 seconds",
    )


async def test_a_tool_that_returns_no_result_is_an_error() -> None:
    class Silent(Tool):
        async def execute(self, sandbox_context: Any, *args: Any, **params: Any) -> ToolResult:
            return None  # type: ignore[return-value]

    result = await Silent().run(None, {})
    assert result.error == "execute must return a ToolResult, not NoneType"


# The factory.


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_tool_of_ours_has_a_schema_of_the_documented_shape(name: str) -> None:
    tool = ToolFactory.create_tool(name)
    schema = json.loads(json.dumps(tool.schema))
    assert tool.name == name
    assert schema["type"] == "function"
    function = schema["function"]
    assert function["name"] == name
    assert function["description"]
    assert set(function) == {"name", "description", "parameters"}
    parameters = function["parameters"]
    assert set(parameters) == {"type", "properties", "required", "additionalProperties"}
    assert (parameters["type"], parameters["additionalProperties"]) == ("object", False)
    assert list(parameters["properties"]) == BUILT_IN[name]
    assert set(parameters["required"]) < set(parameters["properties"])


def test_the_schema_shows_the_timeout_that_is_configured() -> None:
    for settings, expected in (({}, 30), ({"timeout": 60}, 60)):
        tool = ToolFactory.create_tool("python_executor", **settings)
        assert tool.parameters["properties"]["timeout"]["default"] == expected


def test_the_schemas_of_two_tools_share_nothing() -> None:
    one, other = PythonExecutor(), PythonExecutor()
    one.parameters["properties"]["code"]["description"] = "changed"
    assert other.parameters["properties"]["code"]["description"] != "changed"


def test_the_factory_knows_the_tools() -> None:
    known = ToolFactory.get_available_tools()
    assert known == sorted(known)
    assert {*BUILT_IN, "count_lines"} <= set(known)


def test_an_unknown_tool_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ToolNotFound, match=r"no_such is not registered.*python_executor"):
        ToolFactory.create_tool("no_such")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"time": 5}, "time"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"enabled": "perhaps"}, "enabled"),
        ({"parameters": {"code": "x"}}, "parameters"),
        ({"restrictions": {"network": False}}, "network"),
        ({"restrictions": {"max_timeout": 0}}, "max_timeout"),
        ({"restrictions": {"max_timeout": 5}, "timeout": 6}, "timeout"),
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(
    name: str, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValueError, match=field):
        ToolFactory.create_tool(name, **settings)


def test_a_setting_of_another_tool_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="allowed_commands"):
        ToolFactory.create_tool("python_executor", allowed_commands=["ls"])


def test_a_disabled_tool_says_so() -> None:
    assert not ToolFactory.create_tool("python_executor", enabled=False).enabled


def test_only_classes_of_tools_can_be_registered() -> None:
    for name, kind in (("", CountLines), ("x", dict)):
        with pytest.raises(InvalidSpec):
            ToolFactory.register_tool(name, kind)  # type: ignore[arg-type]


def test_a_tool_that_inherits_from_one_of_ours_has_the_name_it_is_registered_under() -> None:
    @register_tool("careful_python")
    class Careful(PythonExecutor):
        """Python without sockets."""

    assert ToolFactory.create_tool("careful_python", blocked_modules=["socket"]).name == (
        "careful_python"
    )
    assert PythonExecutor().name == "python_executor"
