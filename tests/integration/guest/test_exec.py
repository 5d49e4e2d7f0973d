"""Commands: what they are given, what they answer, and how all that they started is ended."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.errors import FileMissing
from sandpool.service import Process

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0

DAEMON = """
import os, time
heard, said = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("/sandbox/daemon", "w") as file:
            file.write(str(os.getpid()))
        os.write(said, b"x")
        os.closerange(0, 100)
        time.sleep(100)
    os._exit(0)
os.wait()
os.read(heard, 1)
"""
"""Leaves a process behind that no session, group or parent connects with the run."""


def sh(script: str, *, stdin: bytes | None = b"", timeout: float | None = LIMIT) -> RunOptions:
    return RunOptions(argv=("sh", "-c", script), stdin=stdin, timeout=timeout)


async def processes(box: Box) -> set[int]:
    """Return the ids of all that runs, the guest, its spare and the one that asks left out."""
    code = "import os; print(os.getpid(), *filter(str.isdigit, os.listdir('/proc')))"
    asker, *found = map(int, (await box.run_code(code, RunOptions(timeout=LIMIT))).stdout.split())
    return set(found) - {1, asker}


async def read(box: Box, path: str) -> str:
    return b"".join([piece async for piece in box.read_file(path)]).decode()


async def first_output(process: Process) -> bytes:
    async for _, data in process:
        return data
    raise AssertionError("it ended without a word")


async def test_arguments_arrive_as_they_are(box: Box) -> None:
    given = ("", " a  b ", "$HOME", "'\"", "*", "\n", "ü\U0001f980", "--", "-n")
    result = await box.exec(RunOptions(argv=("printf", "%s\\0", *given)))
    assert tuple(result.stdout.split("\0")[:-1]) == given


async def test_variables_are_set_for_one_run_and_removed_where_null(box: Box) -> None:
    options = RunOptions(argv=("env",), env={"NEW": "a=b\nc", "HOME": None})
    lines = (await box.exec(options)).stdout
    assert "NEW=a=b\nc\n" in lines
    assert "HOME=" not in lines
    assert "HOME=" in (await box.exec(RunOptions(argv=("env",)))).stdout


async def test_a_run_starts_where_it_is_told(box: Box) -> None:
    await box.make_dir("/sandbox/deep/er")
    for cwd, place in [(None, "/sandbox"), ("/", "/"), ("deep/er", "/sandbox/deep/er")]:
        result = await box.exec(RunOptions(argv=("pwd",), cwd=cwd))
        assert result.stdout == f"{place}\n"
    with pytest.raises(FileMissing):
        await box.exec(RunOptions(argv=("pwd",), cwd="/no/such/place"))


async def test_input_that_is_given_ends(box: Box) -> None:
    data = os.urandom(1 << 20).hex().encode()
    result = await box.exec(RunOptions(argv=("cat",), stdin=data, max_output=None))
    assert result.stdout.encode() == data


async def test_no_input_is_an_empty_one(box: Box) -> None:
    assert (await box.exec(sh("cat; echo $?"))).stdout == "0\n"


async def test_input_can_be_sent_line_by_line(box: Box) -> None:
    async with await box.start(RunOptions(argv=("cat",), stdin=None)) as process:
        for line in (b"one\n", b"two\n"):
            await process.send(line)
            assert await first_output(process) == line
        await process.send_eof()
        result = await process.wait()
    assert (result.exit_code, result.stdout) == (0, "")


async def test_input_that_nobody_reads_does_not_hold_up_the_end(box: Box) -> None:
    with anyio.fail_after(LIMIT):
        result = await box.exec(RunOptions(argv=("true",), stdin=bytes(4 << 20)))
    assert result.ok


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_an_exit_code_is_the_programs_own(box: Box, code: int) -> None:
    result = await box.exec(sh(f"exit {code}"))
    assert (result.exit_code, result.signal) == (code, None)


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "INT", "PIPE"])
async def test_a_death_by_a_signal_is_told(box: Box, name: str) -> None:
    number = int(signal.Signals[f"SIG{name}"])
    result = await box.exec(sh(f"kill -{name} $$"))
    assert (result.exit_code, result.signal) == (128 + number, number)
    assert not result.timed_out


@pytest.mark.parametrize(
    ("program", "code"), [("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126)]
)
async def test_a_program_that_cannot_be_started_ends_as_in_a_shell(
    box: Box, program: str, code: int
) -> None:
    result = await box.exec(RunOptions(argv=(program, "x")))
    assert result.exit_code == code
    assert program in result.stderr
    assert result.stdout == ""


async def test_output_comes_in_the_order_of_each_stream_and_all_of_it(box: Box) -> None:
    script = "for n in $(seq 500); do echo o$n; echo e$n >&2; done; exec 1>&2; echo last"
    process = await box.start(sh(script))
    heard = {"stdout": b"", "stderr": b""}
    async for stream, data in process:
        heard[stream] += data
    result = await process.wait()
    assert result.ok
    assert heard["stdout"] == b"".join(b"o%d\n" % n for n in range(1, 501))
    assert heard["stderr"] == b"".join(b"e%d\n" % n for n in range(1, 501)) + b"last\n"


async def test_output_comes_while_the_program_runs(box: Box) -> None:
    async with await box.start(sh("echo ready; cat", stdin=None)) as process:
        assert await first_output(process) == b"ready\n"


async def test_bytes_that_are_not_text_are_replaced_in_a_result_and_kept_in_a_stream(
    box: Box,
) -> None:
    options = sh("printf 'a\\377b'")
    assert (await box.exec(options)).stdout == "a\ufffdb"
    assert await first_output(await box.start(options)) == b"a\xffb"


async def test_what_a_dying_program_wrote_last_is_not_lost(box: Box) -> None:
    result = await box.exec(sh("seq 20000; kill -9 $$"))
    assert result.stdout.endswith("\n20000\n")


async def test_output_without_end_is_cut_and_does_not_stall_the_program(box: Box) -> None:
    options = RunOptions(
        argv=("sh", "-c", "yes | head -c 8M; yes e | head -c 1M >&2; echo done > /sandbox/end"),
        max_output=1000,
        timeout=LIMIT,
    )
    result = await box.exec(options)
    assert (len(result.stdout), len(result.stderr)) == (1000, 1000)
    assert result.ok
    assert result.truncated
    assert await read(box, "/sandbox/end") == "done\n"


@pytest.mark.parametrize(("size", "is_cut"), [(999, False), (1000, False), (1001, True)])
async def test_output_is_called_cut_exactly_when_it_was(box: Box, size: int, is_cut: bool) -> None:
    options = RunOptions(argv=("head", "-c", str(size), "/dev/zero"), max_output=1000)
    result = await box.exec(options)
    assert (len(result.stdout), result.truncated) == (min(size, 1000), is_cut)


async def test_endless_output_is_ended_by_the_timeout(box: Box) -> None:
    result = await box.exec(RunOptions(argv=("yes",), max_output=64, timeout=0.05))
    assert result.timed_out
    assert result.truncated
    assert len(result.stdout) == 64


async def test_a_reader_that_stops_holds_the_program_back_and_nobody_else(box: Box) -> None:
    async with await box.start(RunOptions(argv=("yes",), max_output=None)) as process:
        assert await first_output(process)
        with anyio.fail_after(LIMIT):
            assert (await box.exec(sh("echo free"))).stdout == "free\n"
            assert await box.write_file("/sandbox/f", bytes(1 << 20)) == 1 << 20


async def test_a_timeout_kills_children_in_the_background(box: Box) -> None:
    result = await box.exec(sh("sleep 100 & sleep 100 & wait", timeout=0.05))
    assert (result.timed_out, result.exit_code, result.signal) == (True, 137, 9)
    assert await box.kill_all() == 0
    assert (await box.exec(sh("echo usable"))).stdout == "usable\n"


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
async def test_a_timeout_finds_a_daemon_and_spares_other_runs(box: Box, company: bool) -> None:
    other = await box.start(sh("echo up; cat", stdin=None)) if company else None
    if other is not None:
        assert await first_output(other) == b"up\n"
    options = RunOptions(timeout=0.2)
    result = await box.run_code(DAEMON + "time.sleep(100)", options)
    assert result.timed_out, result.stderr
    daemon = int(await read(box, "/sandbox/daemon"))
    assert daemon not in await processes(box)
    if other is not None:
        await other.send(b"still here\n")
        assert await first_output(other) == b"still here\n"
        await other.send_eof()
        assert (await other.wait()).ok


async def test_a_cancelled_run_is_killed_with_its_daemon(box: Box) -> None:
    process = await box.start_code(DAEMON + "print(1, flush=True); time.sleep(100)", RunOptions())
    async with process:
        assert await first_output(process) == b"1\n"
        daemon = int(await read(box, "/sandbox/daemon"))
        assert daemon in await processes(box)
    assert daemon not in await processes(box)


async def test_a_run_that_ends_by_itself_leaves_its_daemon_running(box: Box) -> None:
    result = await box.run_code(DAEMON, RunOptions(timeout=LIMIT))
    assert result.ok, result.stderr
    other = await box.exec(sh("sleep 100", timeout=0.05))
    assert other.timed_out
    assert await box.kill_all() == 1


async def test_a_background_writer_outlives_its_run(box: Box) -> None:
    script = "mkfifo go; (read x < go; echo late; echo $? > told) & echo early"
    assert (await box.exec(sh(script))).stdout == "early\n"
    # Writing to a pipe whose reader has gone would have ended it with SIGPIPE.
    result = await box.exec(sh("echo > go; while [ ! -s told ]; do :; done; cat told"))
    assert result.stdout == "0\n"


async def test_a_run_that_ignores_every_signal_dies_at_its_timeout(box: Box) -> None:
    result = await box.exec(sh("trap '' TERM INT HUP QUIT; while :; do :; done", timeout=0.05))
    assert (result.timed_out, result.signal) == (True, 9)


async def test_a_stopped_run_dies_at_its_timeout(box: Box) -> None:
    result = await box.exec(sh("kill -STOP $$", timeout=0.05))
    assert (result.timed_out, result.signal) == (True, 9)


async def test_a_signal_goes_to_the_whole_group(box: Box) -> None:
    process = await box.start(sh("sleep 100 & echo $!; wait"))
    background = (await first_output(process)).decode().strip()
    await process.signal(signal.SIGTERM)
    result = await process.wait()
    assert (result.exit_code, result.signal) == (143, 15)
    # It ends of the signal alone, if a moment later than its parent.
    ended = await box.exec(sh(f"while kill -0 {background}; do :; done 2> /dev/null"))
    assert ended.exit_code == 0


async def test_a_signal_can_be_handled(box: Box) -> None:
    process = await box.start(sh("trap 'echo caught; exit 3' USR1; echo up; while :; do :; done"))
    assert await first_output(process) == b"up\n"
    await process.signal(signal.SIGUSR1)
    result = await process.wait()
    assert (result.exit_code, result.stdout) == (3, "caught\n")


async def test_orphans_are_reaped(box: Box) -> None:
    code = (
        "import os\n"
        "heard, said = os.pipe()\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0:\n"
        "            os.write(said, b'%d ' % os.getpid())\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "os.close(said)\n"
        "orphans = open(heard).read().split()\n"
        "while any(os.path.exists(f'/proc/{pid}') for pid in orphans): pass\n"
        "print(len(orphans))\n"
    )
    result = await box.run_code(code, RunOptions(timeout=LIMIT))
    assert result.stdout == "20\n", result


async def test_commands_run_side_by_side(box: Box) -> None:
    results: list[str] = []

    async def echo(number: int) -> None:
        results.append((await box.exec(sh(f"echo {number}"))).stdout)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(echo, number)
    assert sorted(map(int, results)) == list(range(20))


async def test_a_duration_is_the_programs_own_time(box: Box) -> None:
    quick = await box.exec(RunOptions(argv=("true",)))
    killed = await box.exec(sh("sleep 100", timeout=0.05))
    assert 0 < quick.duration < LIMIT
    assert 0.05 <= killed.duration < LIMIT
