"""What the stateful interpreters of every sandbox do, wherever the sandbox lives."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import anyio
import pytest

from sandpool.errors import ContextNotFound, InvalidSpec
from sandpool.models import PoolSpec, Stream
from sandpool.service import Sandbox, SandboxService

pytestmark = pytest.mark.anyio

only_native = pytest.mark.parametrize(
    "service",
    [
        pytest.param("native", marks=pytest.mark.namespaces),
        pytest.param("remote-native", marks=pytest.mark.namespaces),
    ],
    indirect=True,
)


@pytest.fixture
async def sandbox(service: SandboxService) -> AsyncIterator[Sandbox]:
    """A borrowed sandbox."""
    await service.create_pool(PoolSpec(name="one", warm=1, max=2))
    async with service.lease("one") as borrowed:
        yield borrowed


async def test_cells_share_a_namespace(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    first = await context.run("def double(x):\n    return 2 * x\nprint('made')")
    second = await context.run("double(21)")
    assert (first.status, first.stdout, first.result, first.count) == ("ok", "made\n", None, 1)
    assert (second.status, second.stdout, second.result, second.count) == ("ok", "", "42", 2)
    assert second.displays == ({"text/plain": "42"},)


async def test_contexts_know_nothing_of_each_other(sandbox: Sandbox) -> None:
    first, second = await sandbox.contexts.open(), await sandbox.contexts.open()
    await first.run("x = 1")
    result = await second.run("x")
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "NameError"


async def test_contexts_are_listed_found_and_ended(sandbox: Sandbox) -> None:
    first, second = await sandbox.contexts.open(), await sandbox.contexts.open()
    assert sorted(await sandbox.contexts.list()) == sorted([first.id, second.id])
    await first.run("x = 'kept'")
    assert (await sandbox.contexts.get(first.id).run("x")).result == "'kept'"
    for _ in range(2):
        await first.aclose()
    assert await sandbox.contexts.list() == [second.id]
    with pytest.raises(ContextNotFound):
        await first.run("x")
    with pytest.raises(ContextNotFound):
        await first.run("x", on_output=lambda _stream, _data: None)
    with pytest.raises(ContextNotFound):
        await sandbox.contexts.get("no-such-context").run("x")


async def test_a_context_starts_where_and_with_what_it_is_told(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open(env={"TOKEN": "t"}, cwd="/tmp")
    result = await context.run("import os\nprint(os.environ['TOKEN'], os.getcwd())")
    assert result.stdout == "t /tmp\n"


async def test_an_error_is_a_result_and_the_context_goes_on(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    failed = await context.run("x = 1\nprint('so far')\nraise ValueError('no good')")
    assert (failed.status, failed.stdout, failed.result) == ("error", "so far\n", None)
    assert failed.error is not None
    assert (failed.error.name, failed.error.value) == ("ValueError", "no good")
    assert "line 3" in failed.error.traceback
    assert (await context.run("x")).result == "1"


async def test_output_is_told_and_kept(sandbox: Sandbox) -> None:
    told: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    async def on_output(stream: Stream, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        told[stream] += data

    context = await sandbox.contexts.open()
    code = "import sys\nprint('naïve')\nprint('oops', file=sys.stderr)\n[1, 2]"
    result = await context.run(code, on_output=on_output)
    assert told == {"stdout": "naïve\n".encode(), "stderr": b"oops\n"}
    assert (result.stdout, result.stderr, result.result) == ("naïve\n", "oops\n", "[1, 2]")
    assert result.displays == ({"text/plain": "[1, 2]"},)


async def test_what_a_listener_raises_ends_the_cell(sandbox: Sandbox) -> None:
    def on_output(stream: Stream, data: bytes) -> None:
        raise ZeroDivisionError

    context = await sandbox.contexts.open()
    with pytest.raises(ZeroDivisionError):
        await context.run("print('on')", on_output=on_output)


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
async def test_a_timeout_is_a_number_of_seconds(sandbox: Sandbox, timeout: float) -> None:
    context = await sandbox.contexts.open()
    with pytest.raises(InvalidSpec):
        await context.run("1", timeout=timeout)


@only_native
async def test_output_is_told_while_the_cell_runs(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    has_begun = anyio.Event()

    async def run() -> None:
        code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
        await context.run(code, on_output=lambda _stream, _data: has_begun.set())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await has_begun.wait()
        group.cancel_scope.cancel()


@only_native
async def test_a_cell_that_takes_too_long_is_interrupted(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    late = await context.run("x = 1\nimport time\ntime.sleep(600)", timeout=0.2)
    assert late.status == "timeout"
    assert (await context.run("x")).result == "1"


@only_native
async def test_a_cell_that_is_given_up_is_interrupted(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    has_begun = anyio.Event()

    async def run() -> None:
        code = (
            "import time\n"
            # Inside: the interrupt may come as soon as this has been heard.
            "try:\n    print('on', flush=True)\n    time.sleep(600)\n"
            "finally: open('/tmp/ended', 'w')"
        )
        await context.run(code, on_output=lambda _stream, _data: has_begun.set())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await has_begun.wait()
        group.cancel_scope.cancel()
    while not await sandbox.files.exists("/tmp/ended"):
        await anyio.lowlevel.checkpoint()


@only_native
async def test_pictures_are_in_base64_and_pages_are_text(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    code = (
        "class Picture:\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n'\n"
        "    def _repr_html_(self): return '<b>é</b>'\n"
        "display(Picture())\n"
        "Picture()"
    )
    for on_output in (None, lambda _stream, _data: None):
        result = await context.run(code, on_output=on_output)
        assert len(result.displays) == 2
        for bundle in result.displays:
            assert base64.b64decode(bundle["image/png"]) == b"\x89PNG\r\n"
            assert bundle["text/html"] == "<b>é</b>"


@only_native
async def test_a_context_that_dies_says_so(sandbox: Sandbox) -> None:
    context = await sandbox.contexts.open()
    result = await context.run("import os\nos._exit(3)")
    assert result.status == "died"
    with pytest.raises(ContextNotFound):
        await context.run("1")
