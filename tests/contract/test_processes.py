"""What every sandbox's runs and processes do, wherever the sandbox lives."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sandpool.errors import InvalidSpec, LeaseOver, SandboxDied, Unsupported
from sandpool.models import PoolSpec, Stream
from sandpool.service import Process, Sandbox, SandboxService

pytestmark = pytest.mark.anyio

LIMIT = 60.0
"""Seconds after which something that should have happened has not."""

WAITS_FOR_GO = """
import os, time
print("begun", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print("went on")
"""


@pytest.fixture
async def sandbox(service: SandboxService) -> AsyncIterator[Sandbox]:
    await service.create_pool(PoolSpec(name="one", warm=1))
    async with service.lease("one") as sandbox:
        yield sandbox


@pytest.fixture
async def process_sandbox(process_service: SandboxService) -> AsyncIterator[Sandbox]:
    await process_service.create_pool(PoolSpec(name="one", warm=1))
    async with process_service.lease("one") as sandbox:
        yield sandbox


class Reader:
    """The output of a process, waited for piece by piece."""

    def __init__(self, process: Process) -> None:
        self._output = aiter(process)
        self.got: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    async def until(self, text: bytes, stream: Stream = "stdout") -> None:
        """Wait until `text` has come after all that was waited for before."""
        with anyio.fail_after(LIMIT):
            while text not in self.got[stream]:
                found, data = await anext(self._output)
                self.got[found] += data
        self.got[stream] = self.got[stream].partition(text)[2]


async def until_gone(sandbox: Sandbox, pid: int | None) -> None:
    """Wait until no process inside has this id."""
    with anyio.fail_after(LIMIT):
        while (await sandbox.exec(["sh", "-c", f"kill -0 {pid}"])).ok:
            await anyio.lowlevel.checkpoint()


# --- processes ------------------------------------------------------------------------------------


async def test_a_process_reads_what_it_is_sent_until_the_end(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(["cat"]) as process:
        reader = Reader(process)
        await process.send(b"one\n")
        await reader.until(b"one\n")
        await process.send(b"two\n")
        await reader.until(b"two\n")
        await process.send(b"rest")
        await process.send_eof()
        result = await process.wait()
    assert (result.exit_code, result.stdout, result.signal) == (0, "rest", None)


async def test_all_256_bytes_go_in_and_come_out(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 1024
    got = bytearray()
    async with await sandbox.start_process(["cat"]) as process, anyio.create_task_group() as group:

        async def feed() -> None:
            await process.send(data)
            await process.send_eof()

        group.start_soon(feed)
        async for stream, piece in process:
            assert stream == "stdout"
            got += piece
        assert (await process.wait()).ok
    assert bytes(got) == data


async def test_a_process_that_is_started_has_an_id(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(["cat"]) as process:
        reader = Reader(process)
        await process.send(b"up\n")
        await reader.until(b"up\n")
        assert process.pid is not None
        assert process.pid > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_a_process(sandbox: Sandbox, number: signal.Signals) -> None:
    async with await sandbox.start_process(["sleep", "60"]) as process:
        await process.signal(number)
        with anyio.fail_after(LIMIT):
            result = await process.wait()
    assert (result.exit_code, result.signal) == (128 + number, number)
    assert not result.timed_out


async def test_a_process_has_a_deadline(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(["sleep", "60"], timeout=0.1) as process:
        result = await process.wait()
    assert (result.timed_out, result.exit_code) == (True, 128 + signal.SIGKILL)


async def test_the_result_stays_after_the_end(sandbox: Sandbox) -> None:
    async with await sandbox.start_process("echo out; echo err >&2; exit 3") as process:
        result = await process.wait()
        assert await process.wait() == result
        await process.send(b"too late")
        await process.send_eof()
        await process.signal(signal.SIGTERM)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")


async def test_what_is_no_program_is_not_found_as_a_shell_would_say_it(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(["no-such-program"]) as process:
        result = await process.wait()
    assert result.exit_code == 127
    assert "no-such-program" in result.stderr
    assert (await sandbox.exec(["no-such-program"])).exit_code == 127


async def test_only_a_terminal_has_a_size(sandbox: Sandbox) -> None:
    async with await sandbox.start_process(["cat"]) as process:
        with pytest.raises(Unsupported):
            await process.resize(24, 80)
        await process.send(b"on")
        await process.send_eof()
        assert (await process.wait()).stdout == "on"


async def test_variables_and_directories_are_a_process_own(sandbox: Sandbox) -> None:
    await sandbox.files.mkdir("/tmp/there")
    command = ["sh", "-c", "echo $COLOUR && pwd"]
    async with await sandbox.start_process(
        command, env={"COLOUR": "blue"}, cwd="/tmp/there"
    ) as process:
        assert (await process.wait()).stdout == "blue\n/tmp/there\n"


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"X": "\0"}},
        {"timeout": -1.0},
        {"timeout": float("nan")},
    ],
)
async def test_an_impossible_run_is_refused(sandbox: Sandbox, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        async with await sandbox.start_process(["true"], **options) as process:
            await process.wait()
    with pytest.raises(InvalidSpec):
        await sandbox.exec(["true"], **options)
    with pytest.raises(InvalidSpec):
        await sandbox.run_code("1", **options)
    assert (await sandbox.run_code("print('on')")).stdout == "on\n"


async def test_leaving_the_block_kills_the_process(process_sandbox: Sandbox) -> None:
    async with await process_sandbox.start_process("echo $$; sleep 60 & wait") as process:
        reader = Reader(process)
        await reader.until(b"\n")
    await until_gone(process_sandbox, process.pid)
    # Not every image has `pgrep`.
    command = ["sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null"]
    with anyio.fail_after(LIMIT):
        while "sleep" in (await process_sandbox.exec(command)).stdout.split():
            await anyio.lowlevel.checkpoint()


async def test_a_process_ends_with_the_lease(service: SandboxService) -> None:
    await service.create_pool(PoolSpec(name="one", warm=1))
    sandbox = await service.claim("one")
    async with await sandbox.start_process(["cat"]) as process:
        reader = Reader(process)
        await process.send(b"up\n")
        await reader.until(b"up\n")
        await service.delete_sandbox(sandbox.id)
        with anyio.fail_after(LIMIT), pytest.raises((LeaseOver, SandboxDied)):
            await process.wait()
    with pytest.raises((LeaseOver, SandboxDied)):
        await sandbox.start_process(["cat"])


# --- runs -----------------------------------------------------------------------------------------


async def test_output_is_told_while_the_run_goes_on(sandbox: Sandbox) -> None:
    told: list[tuple[Stream, bytes]] = []

    async def on_output(stream: Stream, data: bytes) -> None:
        if not told:
            await sandbox.files.write("go", "")
        told.append((stream, data))

    with anyio.fail_after(LIMIT):
        result = await sandbox.run_code(WAITS_FOR_GO, on_output=on_output)
    assert result.ok
    assert b"".join(data for _, data in told) == b"begun\nwent on\n"
    assert len(told) >= 2


async def test_output_is_told_in_its_order(sandbox: Sandbox) -> None:
    told: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def on_output(stream: Stream, data: bytes) -> None:
        told[stream] += data

    code = "import sys\nfor i in range(5000): print(i, file=sys.stderr if i % 2 else sys.stdout)"
    assert (await sandbox.run_code(code, on_output=on_output)).ok
    assert told["stdout"] == b"".join(b"%d\n" % i for i in range(0, 5000, 2))
    assert told["stderr"] == b"".join(b"%d\n" % i for i in range(1, 5000, 2))


async def test_bytes_that_are_no_text_are_told_as_they_are(sandbox: Sandbox) -> None:
    told = bytearray()

    def on_output(_: Stream, data: bytes) -> None:
        told.extend(data)

    code = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    await sandbox.exec(["python3", "-c", code], on_output=on_output)
    assert bytes(told) == bytes(range(256))
    result = await sandbox.exec(["python3", "-c", code])
    assert result.stdout == bytes(range(256)).decode("utf-8", "replace")


async def test_input_may_be_any_bytes(sandbox: Sandbox) -> None:
    told = bytearray()

    def on_output(_: Stream, data: bytes) -> None:
        told.extend(data)

    await sandbox.exec(["cat"], stdin=b"\xff\x00\n", on_output=on_output)
    assert bytes(told) == b"\xff\x00\n"
    assert (await sandbox.exec(["cat"], stdin="größe")).stdout == "größe"
    assert (await sandbox.run_code("print(input())", stdin="größe\n")).stdout == "größe\n"


@pytest.mark.parametrize("most", [0, 10])
async def test_output_past_the_limit_is_cut_off(sandbox: Sandbox, most: int) -> None:
    result = await sandbox.run_code("print('x' * 1000)", max_output=most)
    assert (result.stdout, result.truncated, result.exit_code) == ("x" * most, True, 0)


async def test_output_without_a_limit_is_whole(sandbox: Sandbox) -> None:
    result = await sandbox.run_code("print('x' * 3_000_000)", max_output=None)
    assert (len(result.stdout), result.truncated) == (3_000_001, False)


async def test_a_run_that_takes_too_long_is_killed_and_the_sandbox_goes_on(
    sandbox: Sandbox,
) -> None:
    code = "import time\nprint('before', flush=True)\ntime.sleep(60)"
    result = await sandbox.run_code(code, timeout=0.3)
    assert (result.timed_out, result.stdout) == (True, "before\n")
    result = await sandbox.exec("echo before; sleep 60", timeout=0.3)
    assert (result.timed_out, result.stdout) == (True, "before\n")
    assert (await sandbox.run_code("print('on')")).stdout == "on\n"


async def test_what_a_listener_raises_ends_the_run(sandbox: Sandbox) -> None:
    class Enough(Exception):
        """Raised by a listener."""

    def on_output(_: Stream, data: bytes) -> None:
        raise Enough(data)

    with anyio.fail_after(LIMIT), pytest.raises(Enough):
        await sandbox.run_code(WAITS_FOR_GO, on_output=on_output)
    assert (await sandbox.run_code("print('on')")).stdout == "on\n"


async def test_a_run_that_is_given_up_leaves_the_sandbox_usable(sandbox: Sandbox) -> None:
    code = "import time\nopen('begun', 'w').close()\ntime.sleep(60)"
    for run in (
        lambda: sandbox.run_code(code),
        lambda: sandbox.exec(["python3", "-c", code]),
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            with anyio.fail_after(LIMIT):
                while not await sandbox.files.exists("begun"):
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await sandbox.files.remove("begun")
        assert (await sandbox.run_code("print('on')")).stdout == "on\n"


@pytest.mark.parametrize("is_code", [True, False])
async def test_a_run_that_is_given_up_is_killed(process_sandbox: Sandbox, *, is_code: bool) -> None:
    sandbox = process_sandbox
    code = (
        "import os, time\nopen('new', 'w').write(str(os.getpid()))\n"
        "os.rename('new', 'pid')\ntime.sleep(60)"
    )
    async with anyio.create_task_group() as group:
        if is_code:
            group.start_soon(sandbox.run_code, code)
        else:
            group.start_soon(sandbox.exec, ["python3", "-c", code])
        with anyio.fail_after(LIMIT):
            while not await sandbox.files.exists("pid"):
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await until_gone(sandbox, int(await sandbox.files.read_text("pid")))


async def test_runs_at_one_time_do_not_mix(sandbox: Sandbox) -> None:
    outputs: dict[int, str] = {}

    async def run(number: int) -> None:
        code = f"for i in range(100): print({number})"
        outputs[number] = (await sandbox.run_code(code)).stdout

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(run, number)
    assert outputs == {number: f"{number}\n" * 100 for number in range(8)}


# --- terminals ------------------------------------------------------------------------------------


async def test_what_is_typed_on_a_terminal_echoes_and_is_read(process_sandbox: Sandbox) -> None:
    async with await process_sandbox.open_pty(["sh", "-c", "read line; echo got $line"]) as screen:
        reader = Reader(screen)
        await screen.send(b"hello\n")
        await reader.until(b"hello\r\n")
        await reader.until(b"got hello\r\n")
        assert (await screen.wait()).ok


async def test_a_terminal_has_the_size_that_it_is_told(process_sandbox: Sandbox) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do :; done"
    async with await process_sandbox.open_pty(["sh", "-c", script], rows=40, cols=132) as screen:
        reader = Reader(screen)
        await reader.until(b"40 132\r\n")
        await screen.resize(50, 100)
        await reader.until(b"50 100\r\n")
        assert (await screen.wait()).ok


async def test_a_terminals_keys_are_signals(process_sandbox: Sandbox) -> None:
    script = "trap 'echo caught; exit 4' INT; echo up; read line"
    async with await process_sandbox.open_pty(["sh", "-c", script]) as screen:
        reader = Reader(screen)
        await reader.until(b"up\r\n")
        await screen.send(b"\x03")
        await reader.until(b"caught\r\n")
        assert (await screen.wait()).exit_code == 4


@pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 0), (-1, 80), (1 << 16, 80)])
async def test_a_terminal_of_an_impossible_size_is_refused(
    process_sandbox: Sandbox, rows: int, cols: int
) -> None:
    with pytest.raises(InvalidSpec):
        async with await process_sandbox.open_pty(["true"], rows=rows, cols=cols) as screen:
            await screen.wait()


async def test_leaving_the_block_ends_the_terminal(process_sandbox: Sandbox) -> None:
    async with await process_sandbox.open_pty(["sh", "-c", "echo up; exec sleep 60"]) as screen:
        await Reader(screen).until(b"up\r\n")
    await until_gone(process_sandbox, screen.pid)
