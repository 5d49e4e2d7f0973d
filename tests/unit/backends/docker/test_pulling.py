"""References, how far a pull is, and who pulls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.docker.engine import Answer, Engine
from sandpool.backends.docker.pulling import Progress, Pulls, split
from sandpool.errors import ImageNotFound, SandpoolError
from sandpool.models import ImagePull

MIB = 1 << 20
NOTHING = ImagePull(layers=0, layers_done=0, bytes_done=0, bytes_total=0)


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("python", "python", "latest"),
        ("python:3.11-slim", "python", "3.11-slim"),
        ("library/python:3", "library/python", "3"),
        ("host:5000/python", "host:5000/python", "latest"),
        ("host:5000/python:3", "host:5000/python", "3"),
        ("python@sha256:ab", "python", "sha256:ab"),
        ("host:5000/python:3@sha256:ab", "host:5000/python:3", "sha256:ab"),
    ],
)
def test_a_reference_has_a_name_and_a_tag(reference: str, name: str, tag: str) -> None:
    assert split(reference) == (name, tag)


def after(*lines: Mapping[str, Any]) -> Progress:
    progress = Progress()
    for line in lines:
        progress.take(line)
    return progress


def said(status: str, layer: str, **detail: int) -> dict[str, Any]:
    return {"status": status, "id": layer, "progressDetail": detail}


def downloading(layer: str, current: int, total: int) -> dict[str, Any]:
    return said("Downloading", layer, current=current * MIB, total=total * MIB)


def test_progress_is_the_sum_of_the_layers() -> None:
    begun = [said("Pulling fs layer", layer) for layer in ("a", "b", "c")]
    lines = [*begun, downloading("a", 1, 4), downloading("b", 2, 4), downloading("a", 3, 4)]
    assert str(after(*lines).state()) == "5.0 of 8.0 MiB, 0 of 3 layers"
    lines += [said("Verifying Checksum", "a"), said("Download complete", "a")]
    assert str(after(*lines).state()) == "6.0 of 8.0 MiB, 0 of 3 layers"
    lines += [said("Extracting", "a", current=1, total=4 * MIB), said("Pull complete", "a")]
    assert str(after(*lines).state()) == "6.0 of 8.0 MiB, 1 of 3 layers"
    assert after(*lines).error is None


def test_layers_that_were_there_before_count_and_have_no_bytes() -> None:
    found = after(
        {"status": "Pulling from library/python", "id": "3.11-slim"},
        said("Already exists", "a"),
        said("Pulling fs layer", "b"),
        {"status": "Digest: sha256:ab"},
    ).state()
    assert found == ImagePull(layers=2, layers_done=1, bytes_done=0, bytes_total=0)


@pytest.mark.parametrize("total", [{}, {"total": -1}, {"total": 0}, {"total": "all"}])
def test_a_layer_of_unknown_size_is_as_large_as_what_has_come_of_it(total: dict[str, Any]) -> None:
    found = after({**said("Downloading", "a"), "progressDetail": {"current": 3, **total}}).state()
    assert (found.bytes_done, found.bytes_total) == (3, 3)


def test_a_layer_that_is_tried_again_begins_where_it_says() -> None:
    lines = [downloading("a", 3, 4), said("Retrying in 5 seconds", "a"), downloading("a", 1, 4)]
    assert str(after(*lines).state()) == "1.0 of 4.0 MiB, 0 of 1 layers"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"error": "no such\n manifest", "errorDetail": {"message": "x"}}, "no such manifest"),
        ({"errorDetail": {"message": "toomanyrequests"}}, "toomanyrequests"),
        ({"errorDetail": {"code": 7}}, "it did not say why"),
        ({"error": 7}, "it did not say why"),
        ({"error": " "}, "it did not say why"),
        ({"error": "x" * 5000}, "x" * 1000),
    ],
)
def test_a_failure_is_one_line(line: dict[str, Any], reason: str) -> None:
    assert after(line, {"error": "and then another"}).error == reason


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"status": "Downloading"},
        {"status": "Downloading", "id": 7},
        {"status": ["Downloading"], "id": "a"},
        {"status": "Download complete and more", "id": "a"},
        {"status": "Pulling from library/python", "id": "3.11-slim"},
        {"error": None},
        {"aux": {"ID": "sha256:ab"}},
    ],
)
def test_a_line_that_says_nothing_changes_nothing(line: dict[str, object]) -> None:
    assert after(line).state() == NOTHING
    assert after(line).error is None


@pytest.mark.parametrize(
    "detail", [None, [], "much", {"current": "much"}, {"current": True}, {"current": 1 << 70}]
)
def test_a_size_that_is_none_is_no_bytes(detail: object) -> None:
    line = {"status": "Downloading", "id": "a", "progressDetail": detail}
    assert after(line).state() == ImagePull(layers=1, layers_done=0, bytes_done=0, bytes_total=0)


def test_an_engine_that_names_layers_without_end_fills_no_memory() -> None:
    progress = Progress()
    for number in range(5000):
        progress.take(said("Pulling fs layer", str(number)))
    assert progress.state().layers == 4096


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
STATUSES = st.sampled_from(
    ["Downloading", "Waiting", "Download complete", "Extracting", "Pull complete", "Already exists"]
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "status": STATUSES | JSON,
        "id": st.sampled_from(["a", "b"]) | JSON,
        "progressDetail": st.fixed_dictionaries(
            {}, optional={"current": st.integers() | JSON, "total": st.integers() | JSON}
        )
        | JSON,
        "error": JSON,
        "errorDetail": JSON,
    },
)


@given(st.lists(LINES))
def test_whatever_comes_the_parts_are_never_more_than_the_whole(
    lines: list[dict[str, Any]],
) -> None:
    found = after(*lines).state()
    assert 0 <= found.layers_done <= found.layers
    assert 0 <= found.bytes_done <= found.bytes_total


class ScriptedEngine(Engine):
    """An engine of which a test says when it goes on with a pull, and how that ends."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere")
        self.asked: list[Mapping[str, str]] = []
        self.left = 0
        """How many of those that asked did not wait for the end."""
        self.answer = Answer(200, b"")
        self.tell: Callable[[Mapping[str, Any]], None] = lambda _: None
        self.end = asyncio.Event()

    async def follow(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        on_line: Callable[[Mapping[str, Any]], None],
        patience: float,
    ) -> Answer:
        self.asked.append(query)
        self.tell = on_line
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return self.answer


@pytest.mark.anyio
async def test_who_asks_for_an_image_that_is_being_pulled_waits_for_that_pull() -> None:
    engine = ScriptedEngine()
    pulls = Pulls(engine)
    async with anyio.create_task_group() as group:
        for interval in (None, 3.0):
            group.start_soon(pulls.pull, ("py", None), "py:1", interval)
        group.start_soon(pulls.pull, ("py", "linux/arm64"), "py:1", None)
        group.start_soon(pulls.pull, ("other", None), "other", None)
        await anyio.wait_all_tasks_blocked()
        assert engine.asked == [
            {"fromImage": "py", "tag": "1"},
            {"fromImage": "py", "tag": "1", "platform": "linux/arm64"},
            {"fromImage": "other", "tag": "latest"},
        ]
        engine.tell(downloading("a", 1, 4))
        assert str(pulls.state()["other"]) == "1.0 of 4.0 MiB, 0 of 1 layers"
        assert set(pulls.state()) == {"py", "other"}
        engine.end.set()
    assert pulls.state() == {}


@pytest.mark.anyio
async def test_a_pull_that_fails_fails_for_all_who_wait_for_it() -> None:
    engine = ScriptedEngine()
    engine.answer = Answer(500, b'{"message": "no space left on device"}')
    pulls = Pulls(engine)
    told: list[SandpoolError] = []

    async def pull() -> None:
        try:
            await pulls.pull(("py", None), "py:1", None)
        except ImageNotFound as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(pull)
        await anyio.wait_all_tasks_blocked()
        engine.end.set()
    assert len(engine.asked) == 1
    assert ["no space left on device" in str(error) for error in told] == [True] * 3
    assert len(set(map(id, told))) == 3


@pytest.mark.anyio
async def test_an_engine_s_own_error_in_the_middle_of_a_pull_is_the_cause() -> None:
    engine = ScriptedEngine()
    async with anyio.create_task_group() as group:

        async def pull() -> None:
            with pytest.raises(ImageNotFound, match="manifest unknown") as caught:
                await Pulls(engine).pull(("py", None), "py:1", None)
            assert "docker pull py:1" in str(caught.value)

        group.start_soon(pull)
        await anyio.wait_all_tasks_blocked()
        engine.tell({"error": "manifest unknown"})
        engine.end.set()


@pytest.mark.anyio
async def test_who_pulls_may_leave_and_another_goes_on() -> None:
    engine = ScriptedEngine()
    pulls = Pulls(engine)
    first = anyio.CancelScope()

    async def leave() -> None:
        with first:
            await pulls.pull(("py", None), "py:1", None)

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(pulls.pull, ("py", None), "py:1", None)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        while len(engine.asked) < 2:
            await anyio.lowlevel.checkpoint()
        assert engine.left == 1
        engine.end.set()
    assert first.cancelled_caught
    assert pulls.state() == {}


@pytest.mark.anyio
async def test_who_waits_may_leave_and_the_pull_goes_on() -> None:
    engine = ScriptedEngine()
    pulls = Pulls(engine)
    async with anyio.create_task_group() as group:
        group.start_soon(pulls.pull, ("py", None), "py:1", None)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as others:
            others.start_soon(pulls.pull, ("py", None), "py:1", None)
            await anyio.wait_all_tasks_blocked()
            others.cancel_scope.cancel()
        assert (len(engine.asked), engine.left) == (1, 0)
        engine.end.set()


def test_a_pull_that_died_with_its_event_loop_is_none() -> None:
    engine = ScriptedEngine()
    pulls = Pulls(engine)
    loop = asyncio.new_event_loop()
    task = loop.create_task(pulls.pull(("py", None), "py:1", None))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert set(pulls.state()) == {"py"}
    loop.close()
    assert pulls.state() == {}

    async def again() -> None:
        engine.end = asyncio.Event()
        engine.end.set()
        await pulls.pull(("py", None), "py:1", None)

    asyncio.run(again())
    assert len(engine.asked) == 2
    # Nobody will ever go on with it, and asyncio would say so.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_the_log_has_as_many_lines_as_who_waits_has_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = ScriptedEngine()
    pulls = Pulls(engine)
    caplog.set_level(logging.INFO, "sandpool")
    async with anyio.create_task_group() as group:
        group.start_soon(pulls.pull, ("py", None), "py:1", None)
        await anyio.wait_all_tasks_blocked()
        engine.tell(downloading("a", 1, 4))
        assert caplog.messages == ["pulling py:1"]
        for interval in (1e-9, 1000.0):
            group.start_soon(pulls.pull, ("py", None), "py:1", interval)
        await anyio.wait_all_tasks_blocked()
        engine.tell(downloading("a", 2, 4))
        assert caplog.messages[1:] == ["pulling py:1: 2.0 of 4.0 MiB, 0 of 1 layers"]
        engine.end.set()
