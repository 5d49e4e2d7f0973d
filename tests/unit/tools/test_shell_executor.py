from __future__ import annotations

from collections.abc import Sequence

import pytest

from sandpool.errors import InvalidToolArgument
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import ExecutionStatus
from sandpool.tools import ShellExecutor

pytestmark = pytest.mark.anyio


async def test_what_a_command_prints_is_the_output(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor().run(sandbox, {"command": "echo a && echo b"})
    assert (result.success, result.output, result.error) == (True, "a\nb\n", None)
    assert result.metadata == {"exit_code": 0, "signal": None, "truncated": False}
    assert result.execution_time is not None


async def test_a_list_is_run_without_a_shell(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor().run(sandbox, {"command": ["echo", "$HOME; echo b"]})
    assert result.output == "$HOME; echo b\n"


async def test_a_failure_with_words_is_told_in_them(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor().run(sandbox, {"command": "echo why >&2; exit 3"})
    assert (result.status, result.error) == (ExecutionStatus.ERROR, "why\n")
    assert result.metadata["exit_code"] == 3


async def test_a_failure_without_words_is_told_by_its_exit_code(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor().run(sandbox, {"command": "exit 3"})
    assert (result.status, result.error) == (
        ExecutionStatus.ERROR,
        "Command failed with exit code 3",
    )


@pytest.mark.slow
async def test_a_command_is_killed_when_its_time_is_up(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor().run(sandbox, {"command": "echo a; sleep 30", "timeout": 1})
    assert result.status is ExecutionStatus.TIMEOUT
    assert (result.output, result.error) == ("a\n", "Command timed out after 1 seconds")


async def test_the_configured_shell_is_used(native: LocalSandbox) -> None:
    command = "echo ${BASH_VERSION:+bash}"
    assert (await ShellExecutor().run(native, {"command": command})).output == "bash\n"
    plain = ShellExecutor(shell_path="/bin/sh")
    dash = await plain.run(native, {"command": "case $0 in /bin/sh) echo yes; esac"})
    assert dash.output == "yes\n"


async def test_output_past_its_size_is_cut_and_flagged(sandbox: LocalSandbox) -> None:
    result = await ShellExecutor(max_output_size=3).run(sandbox, {"command": "echo abcdef"})
    assert (result.output, result.metadata["truncated"]) == ("abc", True)


@pytest.mark.parametrize("command", ["", " \n", [], [""]])
async def test_no_command_is_an_error(fake: LocalSandbox, command: str | Sequence[str]) -> None:
    result = await ShellExecutor().run(fake, {"command": command})
    assert (result.status, result.error) == (ExecutionStatus.ERROR, "No command provided")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "command"),
        ({"command": 1}, "command"),
        ({"command": {"a": "b"}}, "command"),
        ({"command": ["a", 1]}, "command"),
        ({"command": "a", "cmd": "b"}, "cmd"),
        ({"command": "a", "timeout": "1"}, "timeout"),
    ],
)
async def test_a_bad_argument_is_named_and_nothing_runs(
    fake: LocalSandbox, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidToolArgument, match=f"'{name}'"):
        await ShellExecutor().run(fake, arguments)


async def test_an_allow_list_refuses_the_rest_before_anything_runs(sandbox: LocalSandbox) -> None:
    tool = ShellExecutor(allowed_commands=["echo"])
    assert (await tool.run(sandbox, {"command": "echo a > ran"})).success
    result = await tool.run(sandbox, {"command": "echo b > ran; cat ran"})
    assert (result.status, result.error) == (
        ExecutionStatus.ERROR,
        "Command 'cat' is not allowed",
    )
    assert result.metadata == {"refused": True}
    assert (await sandbox.exec(["cat", "ran"])).stdout == "a\n"


async def test_a_block_list_refuses_its_commands(sandbox: LocalSandbox) -> None:
    tool = ShellExecutor(blocked_commands=["cat"])
    assert (await tool.run(sandbox, {"command": "echo cat"})).output == "cat\n"
    for command in ("/bin/cat x", ["cat", "x"], "sh -c 'c''at x'"):
        result = await tool.run(sandbox, {"command": command})
        assert result.metadata == {"refused": True}
