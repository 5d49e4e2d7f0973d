from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from sandpool.errors import InvalidToolArgument
from sandpool.manager.hold import Hold
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import ExecutionStatus, SandboxType, ToolResult
from sandpool.tools import NotebookExecutor

pytestmark = pytest.mark.anyio


class Notebook:
    """A tool and the sandbox that its cells run in."""

    def __init__(self, sandbox: LocalSandbox) -> None:
        self.tool = NotebookExecutor()
        self.sandbox = sandbox

    async def run(self, code: str, **rest: Any) -> ToolResult:
        return await self.tool.run(self.sandbox, {"code": code, **rest})


async def test_variables_are_kept_from_cell_to_cell(sandbox: LocalSandbox) -> None:
    notebook = Notebook(sandbox)
    first = await notebook.run("x = 40\nprint('set')")
    assert (first.success, first.output, first.error) == (True, "set\n", None)
    second = await notebook.run("print(x)\nx + 2")
    assert second.output == "40\n\nResult: 42"
    assert (first.metadata["execution_count"], second.metadata["execution_count"]) == (1, 2)
    assert second.metadata["display_data"] == [{"text/plain": "42"}]
    assert second.execution_time is not None


async def test_an_exception_is_told_by_its_traceback_and_ends_only_its_cell(
    sandbox: LocalSandbox,
) -> None:
    notebook = Notebook(sandbox)
    failed = await notebook.run("x = 1\nprint('lost')\nx / 0")
    assert (failed.status, failed.output) == (ExecutionStatus.ERROR, "")
    assert "ZeroDivisionError: division by zero" in str(failed.error)
    assert (await notebook.run("x")).output == "\nResult: 1"


@pytest.mark.slow
async def test_a_cell_is_stopped_when_its_time_is_up(sandbox: LocalSandbox) -> None:
    notebook = Notebook(sandbox)
    result = await notebook.run("import time\nfor _ in range(300): time.sleep(0.1)", timeout=1)
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error == "Command timed out after 1 seconds"
    assert (await notebook.run("1 + 1")).output == "\nResult: 2"


async def test_a_lost_kernel_is_replaced_and_told(sandbox: LocalSandbox) -> None:
    notebook = Notebook(sandbox)
    await notebook.run("x = 1")
    box = sandbox.box
    assert box is not None
    for context in await box.list_contexts():
        await box.close_context(context)
    result = await notebook.run("'x' in globals()")
    assert (result.output, result.metadata["kernel_restarted"]) == ("\nResult: False", True)
    assert "kernel_restarted" not in (await notebook.run("1")).metadata


async def test_a_cell_that_kills_its_kernel_is_told(native: LocalSandbox) -> None:
    notebook = Notebook(native)
    died = await notebook.run("import os; os._exit(3)")
    assert died.status is ExecutionStatus.ERROR
    assert "kernel died" in str(died.error)
    after = await notebook.run("1 + 1")
    assert (after.output, after.metadata["kernel_restarted"]) == ("\nResult: 2", True)


async def test_cells_at_one_time_share_a_kernel_and_run_in_turn(sandbox: LocalSandbox) -> None:
    notebook = Notebook(sandbox)
    async with anyio.create_task_group() as group:
        for number in range(5):
            code = f"order = globals().get('order', []) + [{number}]"
            group.start_soon(notebook.run, code)
    assert (await notebook.run("order")).output == "\nResult: [0, 1, 2, 3, 4]"
    assert len(await sandbox.contexts.list()) == 1


async def test_a_cancelled_cell_leaves_the_turn_to_the_next(sandbox: LocalSandbox) -> None:
    notebook = Notebook(sandbox)
    await notebook.run("x = 1")
    with anyio.move_on_after(0.2):
        await notebook.run("import time\nfor _ in range(300): time.sleep(0.1)")
    assert (await notebook.run("1 + 1")).output == "\nResult: 2"


async def test_handles_of_one_sandbox_have_kernels_of_their_own(fake: LocalSandbox) -> None:
    tool = NotebookExecutor()
    assert fake.box is not None
    handle = fake.lend(Hold(fake.box))
    await tool.run(fake, {"code": "x = 1"})
    result = await tool.run(handle, {"code": "'x' in globals()"})
    assert result.output == "\nResult: False"


async def test_a_handle_that_is_gone_is_forgotten(fake: LocalSandbox) -> None:
    tool = NotebookExecutor()
    assert fake.box is not None
    handle: LocalSandbox | None = fake.lend(Hold(fake.box))
    await tool.run(handle, {"code": "x = 1"})
    assert len(tool._notebooks) == 1
    handle = None
    gc.collect()
    assert len(tool._notebooks) == 0


async def test_no_code_is_an_error(fake: LocalSandbox) -> None:
    assert (await Notebook(fake).run(" ")).error == "No code provided"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({}, "code"), ({"code": 1}, "code"), ({"code": "1", "cell": 1}, "cell")],
)
async def test_a_bad_argument_is_named(
    fake: LocalSandbox, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidToolArgument, match=f"'{name}'"):
        await NotebookExecutor().run(fake, arguments)


def test_it_runs_in_notebooks_and_native_sandboxes_only() -> None:
    tool = NotebookExecutor()
    assert tool.required_sandbox_types == (SandboxType.DOCKER_NOTEBOOK,)
    can = [kind for kind in SandboxType if tool.is_compatible_with_sandbox(kind)]
    assert can == [SandboxType.NATIVE, SandboxType.DOCKER_NOTEBOOK]
