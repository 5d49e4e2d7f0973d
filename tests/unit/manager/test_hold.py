"""The right to use one box: how it ends, and what callers may ask of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandpool.backends.base import BoxSpec
from sandpool.errors import (
    ContextNotFound,
    FileTooLarge,
    InvalidSpec,
    LeaseOver,
    SandboxDied,
    SandboxLeased,
)
from sandpool.manager.hold import (
    BoxContexts,
    BoxFiles,
    Hold,
    check_timeout,
    command_line,
    follow,
    run_options,
)
from sandpool.models import Stream
from sandpool.testing import FakeBackend, FakeBox

pytestmark = pytest.mark.anyio


@pytest.fixture
async def box() -> FakeBox:
    return await FakeBackend().create(BoxSpec(), box_id="a")


@pytest.fixture
def hold(box: FakeBox) -> Hold:
    return Hold(box)


async def test_a_hold_that_has_ended_gives_nothing_out(hold: Hold, box: FakeBox) -> None:
    files, contexts = BoxFiles(hold), BoxContexts(hold)
    context = await contexts.open()
    assert hold.box is box
    hold.end()
    assert hold.is_over
    with pytest.raises(LeaseOver, match="sandbox a"):
        await files.write("f", b"x")
    with pytest.raises(LeaseOver):
        await contexts.list()
    with pytest.raises(LeaseOver):
        await context.run("1")
    assert box.died is None


async def test_the_first_reason_to_end_is_the_one_that_is_told(hold: Hold) -> None:
    hold.end(SandboxDied("it has expired", reason="expired"))
    hold.end(LeaseOver("later"))
    with pytest.raises(SandboxDied) as told:
        hold.check()
    assert told.value.reason == "expired"


async def test_telling_the_reason_often_does_not_make_it_longer(hold: Hold) -> None:
    hold.end()
    lengths: list[int] = []
    for _ in range(3):
        with pytest.raises(LeaseOver) as told:
            hold.check()
        lengths.append(len(told.traceback))
    assert len(set(lengths)) == 1


async def test_a_withheld_box_is_given_out_again_once_it_is_not(hold: Hold, box: FakeBox) -> None:
    hold.withhold("it is lent to somebody")
    with pytest.raises(SandboxLeased, match="lent to somebody"):
        _ = hold.box
    hold.withhold(None)
    assert hold.box is box


async def test_a_lease_that_is_over_says_so_even_if_the_box_is_dead_too(
    hold: Hold, box: FakeBox
) -> None:
    box.die("oom")
    with pytest.raises(SandboxDied) as died:
        _ = hold.box
    assert died.value.reason == "oom"
    hold.end()
    with pytest.raises(LeaseOver):
        _ = hold.box


async def test_two_holds_on_one_box_end_one_by_one(box: FakeBox) -> None:
    first, second = Hold(box), Hold(box)
    first.end()
    assert second.box is box


# --- files ----------------------------------------------------------------------------------------


async def test_a_file_is_read_up_to_a_size_and_no_further(hold: Hold) -> None:
    files = BoxFiles(hold)
    await files.write("f", b"12345")
    assert await files.read("f", max_size=5) == b"12345"
    with pytest.raises(FileTooLarge, match="more than 4 bytes"):
        await files.read("f", max_size=4)
    with pytest.raises(FileTooLarge):
        await files.read("f", max_size=0)


async def test_an_endless_file_is_given_up_at_its_size(hold: Hold, box: FakeBox) -> None:
    given = 0

    async def endless(
        path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1000
            yield bytes(1000)

    box.read_file = endless  # type: ignore[method-assign]
    with pytest.raises(FileTooLarge):
        await BoxFiles(hold).read("/dev/zero", max_size=10_000)
    assert given <= 11_000


async def test_text_is_written_as_it_was_read(hold: Hold) -> None:
    files = BoxFiles(hold)
    await files.write("f", "größer")
    await files.append("f", " → \udcff")
    assert await files.read("f") == "größer → ".encode() + b"\xff"
    await files.write("g", "größer")
    assert await files.read_text("g") == "größer"
    assert [piece async for piece in files.stream("g")] == ["größer".encode()]


async def test_what_is_not_there_does_not_exist_and_other_failures_are_failures(
    hold: Hold,
) -> None:
    files = BoxFiles(hold)
    await files.write("f", b"")
    assert await files.exists("f")
    assert not await files.exists("g")
    hold.end()
    with pytest.raises(LeaseOver):
        await files.exists("f")


# --- contexts -------------------------------------------------------------------------------------


async def test_ending_a_context_twice_is_ending_it_once(hold: Hold) -> None:
    contexts = BoxContexts(hold)
    context = await contexts.open(env={"X": "1"})
    assert await contexts.list() == [context.id]
    await context.aclose()
    await context.aclose()
    assert await contexts.list() == []
    with pytest.raises(ContextNotFound):
        await context.run("1")


async def test_a_cell_keeps_its_names_and_refuses_an_impossible_timeout(hold: Hold) -> None:
    context = await BoxContexts(hold).open()
    await context.run("x = 40")
    assert (await context.run("print(x + 2)")).stdout == "42\n"
    with pytest.raises(InvalidSpec, match="timeout"):
        await context.run("1", timeout=0)


# --- what callers write ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("echo a && echo b", ("/bin/sh", "-c", "echo a && echo b")),
        (["echo", "a && b"], ("echo", "a && b")),
        (("true",), ("true",)),
    ],
)
async def test_a_string_is_a_shells_and_a_sequence_is_not(
    command: str | list[str], line: tuple[str, ...]
) -> None:
    assert command_line(command) == line


@pytest.mark.parametrize("command", [[], [1], ["echo", None], ["a\0b"], [b"echo"]])
async def test_a_command_that_none_can_be_is_refused(command: list[str]) -> None:
    with pytest.raises(InvalidSpec, match="command"):
        command_line(command)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), float("-inf")])
async def test_a_timeout_is_a_time(timeout: float) -> None:
    with pytest.raises(InvalidSpec, match="timeout"):
        check_timeout(timeout)
    with pytest.raises(InvalidSpec, match="timeout"):
        run_options(timeout=timeout)


async def test_options_are_the_callers_no_more_once_they_were_read() -> None:
    env: dict[str, str | None] = {"A": "1"}
    argv = ["a"]
    options = run_options(argv=argv, env=env, stdin="ü")
    env["A"] = "2"
    argv.append("b")
    assert (options.argv, options.env, options.stdin) == (("a",), {"A": "1"}, "ü".encode())
    assert run_options(stdin=None).stdin is None


# --- following ------------------------------------------------------------------------------------


async def test_output_is_told_piece_by_piece_and_kept(box: FakeBox) -> None:
    told: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    def listen(stream: Stream, data: bytes) -> None:
        told[stream] += data

    options = run_options(argv=["sh", "-c", "echo a; echo b >&2; echo c; exit 3"])
    result = await follow(await box.start(options), listen)
    assert (result.stdout, result.stderr, result.exit_code) == ("a\nc\n", "b\n", 3)
    assert told == {"stdout": b"a\nc\n", "stderr": b"b\n"}


async def test_a_listener_may_take_its_time(box: FakeBox) -> None:
    told: list[bytes] = []

    async def listen(stream: Stream, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(data)

    result = await follow(await box.start(run_options(argv=["echo", "a"])), listen)
    assert b"".join(told).decode() == result.stdout == "a\n"


async def test_a_listener_that_fails_ends_what_it_listened_to(box: FakeBox) -> None:
    def fail(stream: Stream, data: bytes) -> None:
        raise ValueError("enough")

    process = await box.start(run_options(argv=["sh", "-c", "echo a; sleep 1000"]))
    with anyio.fail_after(60), pytest.raises(ValueError, match="enough"):
        await follow(process, fail)
    assert await box.kill_all() == 0


async def test_output_that_is_no_text_is_shown_as_far_as_it_is(box: FakeBox) -> None:
    code = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    process = await box.start_code(code, run_options())
    result = await follow(process, lambda stream, data: None)
    assert result.stdout == "a\ufffdb"
