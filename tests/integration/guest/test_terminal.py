"""Programs on a terminal: what is typed echoes, its size changes, and it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import InvalidSpec
from sandpool.service import Process

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0


class Screen:
    """A terminal, and what it has shown."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.shown = b""
        self._output: AsyncIterator[tuple[str, bytes]] = aiter(process)

    async def until(self, text: bytes) -> None:
        """Wait until `text` has been shown after all that was waited for before."""
        with anyio.fail_after(LIMIT):
            while text not in self.shown:
                stream, data = await anext(self._output)
                assert stream == "stdout"
                self.shown += data
        self.shown = self.shown.partition(text)[2]


async def open_in(
    box: Box, *argv: str, rows: int = 24, cols: int = 80, timeout: float = LIMIT
) -> Screen:
    options = RunOptions(argv=argv, timeout=timeout)
    return Screen(await box.open_pty(options, rows=rows, cols=cols))


async def test_what_is_typed_echoes_and_is_read(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "read line; echo got $line")
    await screen.process.send(b"hello\n")
    await screen.until(b"hello\r\n")
    await screen.until(b"got hello\r\n")
    assert (await screen.process.wait()).ok


async def test_all_three_streams_are_one_terminal(box: Box) -> None:
    screen = await open_in(
        box, "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo >&2 all"
    )
    await screen.until(b"/dev/pts/")
    await screen.until(b"all\r\n")
    assert (await screen.process.wait()).ok


async def test_the_terminal_controls_its_program(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "trap 'echo caught; exit 4' INT; echo up; read x")
    await screen.until(b"up\r\n")
    await screen.process.send(b"\x03")
    await screen.until(b"caught\r\n")
    assert (await screen.process.wait()).exit_code == 4


async def test_the_size_is_as_given_and_a_change_is_seen(box: Box) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do :; done"
    screen = await open_in(box, "sh", "-c", script, rows=40, cols=132)
    await screen.until(b"40 132\r\n")
    await screen.process.resize(50, 100)
    await screen.until(b"50 100\r\n")
    assert (await screen.process.wait()).ok


@pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 0), (1 << 16, 80), (-1, 80)])
async def test_a_size_that_cannot_be_is_refused(box: Box, rows: int, cols: int) -> None:
    screen = await open_in(box, "true", rows=rows, cols=cols)
    with pytest.raises(InvalidSpec):
        await screen.process.wait()


async def test_a_change_to_a_size_that_cannot_be_is_ignored(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "echo up; read x; stty size", rows=20, cols=30)
    await screen.until(b"up\r\n")
    for rows, cols in [(0, 0), (-5, 10), (1 << 40, 10)]:
        await screen.process.resize(rows, cols)
    await screen.process.send(b"\n")
    await screen.until(b"20 30\r\n")


async def test_the_end_of_input_ends_a_reader(box: Box) -> None:
    screen = await open_in(box, "cat")
    await screen.process.send(b"line\n")
    await screen.until(b"line\r\nline\r\n")
    await screen.process.send_eof()
    assert (await screen.process.wait()).ok


async def test_the_last_output_before_the_end_is_shown(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "seq 3000; exit 6")
    await screen.until(b"\r\n3000\r\n")
    assert (await screen.process.wait()).exit_code == 6


async def test_a_result_has_what_was_not_iterated_over(box: Box) -> None:
    screen = await open_in(box, "echo", "all of it")
    assert (await screen.process.wait()).stdout == "all of it\r\n"


async def test_a_timeout_ends_what_the_terminal_runs(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "sleep 100 & sleep 100", timeout=0.05)
    result = await screen.process.wait()
    assert (result.timed_out, result.signal) == (True, 9)
    assert await box.kill_all() == 0


async def test_leaving_the_terminal_ends_its_program(box: Box) -> None:
    screen = await open_in(box, "sh", "-c", "echo up; cat")
    async with screen.process:
        await screen.until(b"up\r\n")
    assert await box.kill_all() == 0


async def test_two_terminals_are_apart(box: Box) -> None:
    one, two = await open_in(box, "cat"), await open_in(box, "cat")
    await one.process.send(b"one\n")
    await two.process.send(b"two\n")
    await one.until(b"one\r\none\r\n")
    await two.until(b"two\r\ntwo\r\n")
    for screen in (one, two):
        await screen.process.send_eof()
        assert (await screen.process.wait()).ok


async def test_a_missing_program_says_so_on_the_terminal(box: Box) -> None:
    screen = await open_in(box, "no-such-program")
    await screen.until(b"no-such-program")
    assert (await screen.process.wait()).exit_code == 127


async def test_much_output_with_nobody_reading_harms_nobody_else(box: Box) -> None:
    screen = await open_in(box, "yes")
    async with screen.process:
        await screen.until(b"y\r\n")
        assert (await box.exec(RunOptions(argv=("echo", "free")))).stdout == "free\n"
