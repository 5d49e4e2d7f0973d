"""Stateful interpreters: cells share a namespace, show values, and fail without harm to it."""

from __future__ import annotations

import base64

import anyio
import anyio.lowlevel
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import ContextNotFound, NoCapacity
from sandpool.models import ContextResult, Stream

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0
MOST = 64
STUCK = "import time\nwhile True:\n    time.sleep(100)"
FLAG = "open('/sandbox/up', 'w').close()\n"


class Notebook:
    """One context of a sandbox."""

    def __init__(self, box: Box, name: str) -> None:
        self.box = box
        self.name = name

    async def run(
        self, code: str, *, timeout: float = LIMIT, max_output: int | None = None
    ) -> ContextResult:
        return await self.box.run_in_context(
            self.name, code, timeout=timeout, max_output=max_output
        )

    async def value(self, code: str) -> str | None:
        result = await self.run(code)
        assert result.status == "ok", result
        return result.result


async def open_in(box: Box, **env: str) -> Notebook:
    return Notebook(box, await box.open_context(env=env, cwd=None))


@pytest.fixture
async def notebook(box: Box) -> Notebook:
    return await open_in(box)


async def flagged(box: Box) -> None:
    """Wait until a cell has made its file."""
    while not await box.list_files("/sandbox"):
        await anyio.lowlevel.checkpoint()


async def test_cells_share_their_names(notebook: Notebook) -> None:
    await notebook.run("import math\nx = 20\ndef double(n):\n    return 2 * n")
    await notebook.run("x += 1")
    assert await notebook.value("double(x), math.floor(2.5)") == "(42, 2)"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 + 1", "2"),
        ("'text'", "'text'"),
        ("x = 1\nx", "1"),
        ("if True:\n    5", None),
        ("x = 5", None),
        ("None", None),
        ("7;", None),
        ("7;  # muted", None),
        ("'a;'", "'a;'"),
        ("", None),
        ("# nothing", None),
        ("import asyncio\nawait asyncio.sleep(0, 'awaited')", "'awaited'"),
        ("class C:\n    def __repr__(self): return 'own'\nC()", "own"),
    ],
)
async def test_the_last_expression_is_shown_as_a_notebook_does(
    notebook: Notebook, code: str, shown: str | None
) -> None:
    result = await notebook.run(code)
    assert (result.status, result.result) == ("ok", shown)
    assert len(result.displays) == (shown is not None)


async def test_earlier_results_have_names(notebook: Notebook) -> None:
    await notebook.run("3")
    assert await notebook.value("_ + 1") == "4"
    assert await notebook.value("Out[1], _, __, In[1]") == "(3, 4, 3, '3')"


async def test_cells_are_counted(notebook: Notebook) -> None:
    counts = [(await notebook.run(code)).count for code in ("1", "1 / 0", "x = 3")]
    assert counts == [1, 2, 3]


async def test_both_streams_are_kept_apart_and_come_before_the_end(notebook: Notebook) -> None:
    result = await notebook.run(
        "import sys, os\nprint('o')\nprint('e', file=sys.stderr)\nos.system('echo sub')"
    )
    assert (result.stdout, result.stderr, result.result) == ("o\nsub\n", "e\n", "0")


async def test_output_is_given_on_as_it_comes(notebook: Notebook) -> None:
    heard: list[tuple[Stream, bytes]] = []

    async def listen(stream: Stream, data: bytes) -> None:
        heard.append((stream, data))
        if data == b"first\n":
            await notebook.box.write_file("/sandbox/go", b"")

    code = (
        "import os\nprint('first')\nwhile not os.path.exists('/sandbox/go'): pass\nprint('second')"
    )
    result = await notebook.box.run_in_context(
        notebook.name, code, timeout=LIMIT, max_output=None, on_output=listen
    )
    assert heard == [("stdout", b"first\n"), ("stdout", b"second\n")]
    assert result.stdout == "first\nsecond\n"


async def test_output_past_its_limit_is_cut_for_that_cell_only(notebook: Notebook) -> None:
    result = await notebook.run("print('x' * 1_000_000)", max_output=10)
    assert (result.stdout, result.truncated, result.status) == ("x" * 10, True, "ok")
    result = await notebook.run("print('whole')", max_output=10)
    assert (result.stdout, result.truncated) == ("whole\n", False)


async def test_representations_are_shown_by_their_type(notebook: Notebook) -> None:
    result = await notebook.run(
        "class Rich:\n"
        "    def _repr_html_(self): return '<b>rich</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def __repr__(self): return 'rich'\n"
        "Rich()"
    )
    assert result.result == "rich"
    [bundle] = result.displays
    assert bundle["text/html"] == "<b>rich</b>"
    assert base64.b64decode(bundle["image/png"]) == b"\x89PNG"
    assert bundle["text/plain"] == "rich"


async def test_displays_come_in_order_with_the_result_last(notebook: Notebook) -> None:
    result = await notebook.run("display(1, 'two')\nfor n in range(3, 5): display(n)\n'last'")
    shown = [bundle["text/plain"] for bundle in result.displays]
    assert shown == ["1", "'two'", "3", "4", "'last'"]
    assert result.result == "'last'"


async def test_a_value_too_large_to_show_is_shortened(notebook: Notebook) -> None:
    shown = await notebook.value("'x' * 3_000_000")
    assert shown is not None
    assert len(shown) < 300_000
    assert "characters left out" in shown


async def test_a_value_whose_repr_fails_is_an_error_of_the_cell(notebook: Notebook) -> None:
    result = await notebook.run("class C:\n    def __repr__(self): raise OSError('no repr')\nC()")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("OSError", "no repr")
    assert await notebook.value("1") == "1"


async def test_an_error_is_told_and_leaves_the_state(notebook: Notebook) -> None:
    result = await notebook.run("kept = 1\ndef f():\n    return 1 / 0\nf()\nlost = 2")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert "    return 1 / 0\n" in result.error.traceback
    assert result.error.traceback.count('File "') == 2
    assert await notebook.value("kept, 'lost' in globals()") == "(1, False)"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input()", "EOFError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise type('Own', (BaseException,), {})('x')", "Own"),
        ("import asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.001)", "TimeoutError"),
    ],
)
async def test_no_exception_ends_the_context(notebook: Notebook, code: str, name: str) -> None:
    result = await notebook.run(code)
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == name
    assert await notebook.value("'alive'") == "'alive'"


async def test_a_timeout_interrupts_the_cell_and_keeps_the_state(notebook: Notebook) -> None:
    await notebook.run("x = 5")
    result = await notebook.run(f"x += 1\n{STUCK}", timeout=0.05)
    assert result.status == "timeout"
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    assert await notebook.value("x") == "6"


async def test_a_timeout_reaches_what_a_cell_awaits(notebook: Notebook) -> None:
    await notebook.run("import asyncio\nasync def deep(): await asyncio.sleep(100)")
    result = await notebook.run("await deep()", timeout=0.2)
    assert result.status == "timeout"
    assert await notebook.value("await asyncio.sleep(0, 'on')") == "'on'"


@pytest.mark.slow
async def test_a_cell_that_heeds_no_interrupt_costs_its_context_and_nothing_else(
    notebook: Notebook,
) -> None:
    other = await open_in(notebook.box)
    code = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [2])\nwhile True: pass"
    result = await notebook.run(code, timeout=0.01)
    assert result.status == "timeout"
    with pytest.raises(ContextNotFound):
        await notebook.run("1")
    assert await other.value("1") == "1"
    assert await notebook.box.list_contexts() == [other.name]


async def test_a_cancelled_cell_is_interrupted_and_keeps_the_state(notebook: Notebook) -> None:
    await notebook.run("x = 5")
    async with anyio.create_task_group() as group:
        group.start_soon(notebook.run, f"x += 1\n{FLAG}{STUCK}")
        await flagged(notebook.box)
        group.cancel_scope.cancel()
    assert await notebook.value("x") == "6"


async def test_cells_wait_for_one_another(notebook: Notebook) -> None:
    order: list[str] = []

    async def run(code: str) -> None:
        order.append((await notebook.run(code)).stdout)

    gate = "import os\nwhile not os.path.exists('/sandbox/go'): pass\n"
    async with anyio.create_task_group() as group:
        group.start_soon(run, f"{FLAG}{gate}print('first')")
        await flagged(notebook.box)
        group.start_soon(run, "print('second')")
        await anyio.wait_all_tasks_blocked()
        await notebook.box.write_file("/sandbox/go", b"")
    assert order == ["first\n", "second\n"]


async def test_a_waiting_cell_that_is_cancelled_never_runs(notebook: Notebook) -> None:
    gate = "import os\nwhile not os.path.exists('/sandbox/go'): pass\n"
    async with anyio.create_task_group() as group:
        group.start_soon(notebook.run, FLAG + gate)
        await flagged(notebook.box)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(notebook.run, "never = 1")
            await anyio.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        await notebook.box.write_file("/sandbox/go", b"")
    assert await notebook.value("'never' in globals()") == "False"


async def test_two_contexts_are_apart(box: Box) -> None:
    one, two = await open_in(box), await open_in(box)
    await one.run("x = 1; import os; os.chdir('/'); os.environ['ONE'] = '1'")
    shown = await two.value("import os\n'x' in globals(), os.getcwd(), os.environ.get('ONE')")
    assert shown == "(False, '/sandbox', None)"
    random = "import random; random.random()"
    assert await one.value(random) != await two.value(random)


async def test_two_contexts_run_at_one_time(box: Box) -> None:
    one, two = await open_in(box), await open_in(box)
    wait = "import os\nwhile not os.path.exists('/sandbox/go'): pass\n'both'"
    shown: list[str | None] = []

    async def run() -> None:
        shown.append(await one.value(wait))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await two.run("open('/sandbox/go', 'w').close()")
    assert shown == ["'both'"]


async def test_a_context_starts_with_the_environment_it_is_given(box: Box) -> None:
    notebook = await open_in(box, GREETING="hello")
    assert await notebook.value("import os; os.environ['GREETING']") == "'hello'"
    elsewhere = Notebook(box, await box.open_context(env={}, cwd="/tmp"))
    assert await elsewhere.value("import os; os.getcwd()") == "'/tmp'"


async def test_a_context_sees_what_runs_and_files_left_on_disk(notebook: Notebook) -> None:
    await notebook.box.write_file("/sandbox/helper.py", b"answer = 42\n")
    assert await notebook.value("import helper; helper.answer") == "42"
    await notebook.run("open('/sandbox/out', 'w').write('from a cell')")
    result = await notebook.box.exec(RunOptions(argv=("cat", "/sandbox/out")))
    assert result.stdout == "from a cell"


async def test_long_code_is_a_cell_too(notebook: Notebook) -> None:
    assert await notebook.value(f"text = {'x' * 200_000!r}\nlen(text)") == "200000"


async def test_a_closed_context_is_gone_with_all_that_it_started(notebook: Notebook) -> None:
    await notebook.run(
        "import subprocess\nchild = subprocess.Popen(['sleep', '100'], start_new_session=True)"
    )
    assert await notebook.box.list_contexts() == [notebook.name]
    await notebook.box.close_context(notebook.name)
    assert await notebook.box.list_contexts() == []
    assert await notebook.box.kill_all() == 0
    with pytest.raises(ContextNotFound):
        await notebook.run("1")
    await notebook.box.close_context(notebook.name)


async def test_closing_ends_the_cell_that_runs_and_those_that_wait(notebook: Notebook) -> None:
    ended: list[str] = []

    async def run(code: str) -> None:
        try:
            ended.append((await notebook.run(code)).status)
        except ContextNotFound:
            ended.append("not found")

    async with anyio.create_task_group() as group:
        group.start_soon(run, FLAG + STUCK)
        await flagged(notebook.box)
        group.start_soon(run, "1")
        await anyio.wait_all_tasks_blocked()
        await notebook.box.close_context(notebook.name)
    assert sorted(ended) == ["died", "not found"]


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
    ],
    ids=["exits", "killed", "crashes"],
)
async def test_a_context_that_dies_is_reported_and_gone(notebook: Notebook, code: str) -> None:
    result = await notebook.run(f"print('last words')\n{code}")
    assert result.status == "died"
    assert result.stdout == "last words\n"
    with pytest.raises(ContextNotFound):
        await notebook.run("1")
    assert await (await open_in(notebook.box)).value("'new'") == "'new'"


async def test_a_fork_inside_a_cell_does_not_speak_for_the_context(notebook: Notebook) -> None:
    code = (
        "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n'child' if pid == 0 else 'parent'"
    )
    assert await notebook.value(code) == "'parent'"
    assert await notebook.value("'alive'") == "'alive'"


async def test_no_more_contexts_than_the_bound(box: Box) -> None:
    names = [(await open_in(box)).name for _ in range(MOST)]
    with pytest.raises(NoCapacity):
        await open_in(box)
    assert await box.list_contexts() == names
    await box.close_context(names[0])
    assert await (await open_in(box)).value("1") == "1"


@pytest.mark.parametrize("name", ["", "ctx-99", "../1", "\0"])
async def test_an_unknown_context_is_not_found(box: Box, name: str) -> None:
    with pytest.raises(ContextNotFound):
        await Notebook(box, name).run("1")
