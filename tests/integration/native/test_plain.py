"""Sandboxes that compiled code serves, and those that Python does, are the same from outside."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandpool.backends.base import Binding, Box, BoxSpec, Limits, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.backends.native.habits import is_plain
from sandpool.backends.native.template import branch
from sandpool.guest import frames
from tests.copies import copy_sandpool, run_with_copy
from tests.integration.native import conversation, dialogues
from tests.integration.native.conversation import Host, opened, request
from tests.leaks import census

needs_compiler = pytest.mark.skipif(
    not branch.is_compiled(), reason="this host lacks a C compiler: libbranch.so.1 was not made"
)
pytestmark = [pytest.mark.anyio, pytest.mark.namespaces, needs_compiler]

LIBRARY = "backends/native/template/libbranch.so.1"
SLOWLY = """
import os, time
for size in range({}, 0, -1024):
    os.write(1, b'x' * min(size, 1024))
    time.sleep(0.0005)
"""
"""Code that writes so many bytes, and leaves its host the time to read them."""
WAITS = "import os\nos.mkfifo('go')\nprint('begun', flush=True)\nopen('go').read()\nprint('done')"
"""Code that ends when somebody has opened `go`."""
numbers = itertools.count()


# ---- The same as Python ----


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 132), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_it_is_told_a_sandbox_answers_the_same_with_compiled_code_and_without(
    tmp_path: Path, seeds: range
) -> None:
    copy = copy_sandpool(tmp_path)
    conversations = json.dumps([dialogues.Author(seed).write(10) for seed in seeds])
    program = Path(conversation.__file__).read_text()
    compiled = json.loads(run_with_copy(tmp_path, program, stdin=conversations))
    (copy / LIBRARY).unlink()
    interpreted = json.loads(run_with_copy(tmp_path, program, stdin=conversations))
    assert len(compiled) == len(seeds)
    for seed, one, other in zip(seeds, compiled, interpreted, strict=True):
        assert one == other, f"of the seed {seed}"


# ---- Who serves ----


@asynccontextmanager
async def bound(backend: NativeBackend, spec: BoxSpec | None = None) -> AsyncGenerator[Host]:
    """Make a sandbox that is ready, and bound to epoch 1."""
    async with opened(backend, spec, f"plain-{next(numbers)}") as host:
        await host.say(request(1, "hello", version=1), request(2, "warm"))
        assert await host.answer(2) == {}
        assert host.is_plain
        await host.say(request(3, "bind", epoch=1))
        yield host


@pytest.fixture
async def host(templates: NativeBackend) -> AsyncIterator[Host]:
    async with bound(templates) as one:
        yield one


async def run(host: Host, number: int, code: str, **fields: object) -> dict[str, Any]:
    """Run code in epoch 1 and return how it ended."""
    return await host.ask(number, "run_code", epoch=1, code=code, **fields)


async def begin(host: Host, number: int, code: str = WAITS, **fields: object) -> None:
    """Begin a run and return when it says that it has."""
    await host.say(request(number, "run_code", epoch=1, code=code, **fields))
    while b"begun\n" not in host.output(number):
        await host.hear()


async def let_go(host: Host, number: int) -> None:
    """Have the run go on that `begin` has begun."""
    assert (await run(host, number, "open('go', 'w').close()"))["exit_code"] == 0


def children(host: Host) -> frozenset[int]:
    assert host.birth.pid is not None
    return census.descendants(host.birth.pid)


async def test_plain_requests_are_served_without_python(templates: NativeBackend) -> None:
    async with opened(templates, name=f"plain-{next(numbers)}") as host:
        await host.ask(1, "hello", version=1, env={"A": "1", "PATH": None})
        await host.ask(2, "warm")
        await host.ask(3, "ping")
        await host.say(request(4, "bind", epoch=5, env={"B": "2"}))
        for number in range(10, 14):
            fields = {"timeout": 60.5, "max_output": 1000, "env": {"C": "3"}}
            code = "import os; print(os.environ.get('PATH'), *map(os.environ.get, 'ABC'))"
            done = await host.ask(number, "run_code", epoch=5, code=code, **fields)
            assert done["exit_code"] == 0
            assert host.output(number) == b"None 1 2 3\n"
            await host.ask(number + 100, "warm", epoch=5)
        await host.say(request(20, "bind", epoch=6))
        assert (await host.ask(21, "run_code", epoch=6, code="1/0"))["exit_code"] == 1
        assert host.output(21, frames.STDERR).endswith(b"ZeroDivisionError: division by zero\n")
        assert host.is_plain


ASKED: tuple[tuple[str, dict[str, object]], ...] = (
    ("ping", {}),
    ("warm", {}),
    ("warm", {"fully": True}),
    ("bind", {"epoch": 2}),
    ("bind", {"epoch": 2, "env": {"A": "b", "C": None}}),
    ("bind", {"epoch": 2, "cwd": "/tmp"}),
    ("bind", {"epoch": 2, "reseed": False}),
    ("run_code", {"code": ""}),
    ("run_code", {"code": "print('\\u2603\\ud83d\\ude00')"}),
    ("run_code", {"code": "1", "timeout": 60, "max_output": 5}),
    ("run_code", {"code": "1", "timeout": 0.5}),
    ("run_code", {"code": "1", "env": {"A": "b"}}),
    ("run_code", {"code": "1", "argv": ["x"]}),
    ("run_code", {"code": "1", "cwd": "/tmp"}),
    ("run_code", {"code": "1", "stdin": True}),
    ("run_code", {"code": "#" + "x" * 16_000}),
    ("run_code", {"code": "#" + "\u20ac" * 9_000}),
    ("run_code", {"code": "#" + "\u20ac" * 16_000}),
    ("run_code", {"code": "#" + "\U0001f600" * 4_900}),
    ("exec", {"argv": ["true"]}),
    ("processes", {}),
    ("file_stat", {"path": "/"}),
    ("kill_all", {}),
    ("limit", {"rlimits": {}}),
    ("context_list", {}),
)


@pytest.mark.parametrize(("op", "fields"), ASKED)
async def test_python_serves_what_is_not_plain_and_only_that(
    host: Host, op: str, fields: dict[str, object]
) -> None:
    await host.say(request(10, op, **{"epoch": 1, **fields}))
    if "stdin" in fields:
        await host.say(frames.encode(10, frames.EOF))
    answer = await host.answer(10)
    assert answer is not None
    assert "code" not in answer, answer
    assert host.is_plain == is_plain(op, fields)


async def test_code_that_follows_its_request_is_not_plain(host: Host) -> None:
    await host.say(request(10, "run_code", epoch=1), frames.encode(10, frames.DATA, b"print(1)"))
    await host.say(frames.encode(10, frames.EOF))
    await host.answer(10)
    assert host.output(10) == b"1\n"
    assert not host.is_plain
    assert not is_plain("run_code", {"epoch": 1})


# ---- Python takes over ----

CAUSES: dict[str, bytes] = {
    "another run": request(50, "run_code", epoch=1, code="print(6)"),
    "a command": request(50, "exec", epoch=1, argv=["true"]),
    "a binding": request(50, "bind", epoch=1),
    "warmth": request(50, "warm", epoch=1),
    "a greeting": request(50, "hello", version=1),
    "another spelling": frames.encode(50, frames.REQUEST, b' {"op": "ping"}'),
    "a field too many": request(50, "ping", unknown=1),
    "an older epoch": request(50, "run_code", epoch=0, code="1"),
    "a large request": request(50, "ping", unknown="x" * 70_000),
    "input": frames.encode(10, frames.DATA, b"x"),
    "the end of input": frames.encode(10, frames.EOF),
    "a signal of no kind": frames.encode_json(10, frames.CONTROL, {"signal": 0}),
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_run_goes_on_when_python_takes_over(host: Host, cause: str) -> None:
    await begin(host, 10, env={"A": "b"}, timeout=100)
    before = children(host)
    middle = len(CAUSES[cause]) // 2
    await host.say(CAUSES[cause][:middle], CAUSES[cause][middle:])
    if frames.HEADER.unpack(CAUSES[cause][: frames.HEADER.size])[1] == 50:
        assert await host.answer(50) is not None
    await host.settle()
    assert not host.is_plain
    if cause not in ("another run", "warmth"):
        assert children(host) == before, "while something runs there is no spare"
    await let_go(host, 60)
    done = await host.answer(10)
    assert done is not None
    assert (done["exit_code"], done["signal"], done["timed_out"]) == (0, None, False)
    assert not done["truncated"]
    assert host.output(10) == b"begun\ndone\n"
    kinds = [kind for number, kind, _ in host.heard if number == 10]
    assert kinds.count(frames.EVENT) == kinds.count(frames.RESPONSE) == 1
    assert kinds[0] == frames.EVENT
    assert (await host.ask(70, "processes", epoch=1))["processes"] == []
    await run(host, 80, "print(7)")
    assert host.output(80) == b"7\n"


async def test_a_cancelled_run_is_killed_with_all_that_it_has_started(host: Host) -> None:
    code = (
        "import os\nif os.fork(): print('begun', flush=True)\nelse: os.setsid()\nwhile True: pass"
    )
    await begin(host, 10, code)
    await host.say(frames.encode(10, frames.CANCEL))
    answer = await host.answer(10)
    assert answer is not None
    assert answer["code"] == "cancelled"
    assert (await host.ask(20, "processes", epoch=1))["processes"] == []
    await run(host, 30, "print(1)")
    assert host.output(30) == b"1\n"


async def test_a_signal_reaches_a_run(host: Host) -> None:
    await begin(host, 10)
    await host.say(frames.encode_json(10, frames.CONTROL, {"signal": signal.SIGTERM}))
    done = await host.answer(10)
    assert done is not None
    assert (done["exit_code"], done["signal"]) == (143, 15)


@pytest.mark.parametrize("is_idle", [True, False])
async def test_a_timeout_ends_a_run_and_what_it_has_left(host: Host, is_idle: bool) -> None:
    code = WAITS if is_idle else "print('begun', flush=True)\nwhile True: pass"
    await begin(host, 10, code, timeout=0.2)
    done = await host.answer(10)
    assert done is not None
    assert (done["exit_code"], done["timed_out"]) == (137, True)
    assert (await host.ask(20, "processes", epoch=1))["processes"] == []


async def test_what_a_run_leaves_in_the_background_goes_on(host: Host) -> None:
    code = (
        "import os\nif os.fork():\n    print('begun', flush=True)\n    os._exit(3)\n"
        "os.mkfifo('go')\nopen('go').read()\nopen('went', 'w').write('well')"
    )
    done = await run(host, 10, code)
    assert (done["exit_code"], host.output(10)) == (3, b"begun\n")
    await host.settle()
    assert not host.is_plain
    await run(host, 20, "import os\nwhile not os.path.exists('go'): pass\nopen('go', 'w').close()")
    await run(host, 30, "import os\nwhile not os.path.exists('went'): pass")
    assert (await run(host, 40, "print(open('went').read())"))["exit_code"] == 0


async def test_the_bound_on_output_outlasts_the_change(host: Host) -> None:
    await begin(host, 10, "print('x' * 50)\n" + WAITS, max_output=60)
    await host.ask(20, "processes", epoch=1)
    await let_go(host, 30)
    done = await host.answer(10)
    assert done is not None
    assert done["truncated"]
    assert host.output(10) == b"x" * 50 + b"\nbegun\ndon"


async def test_code_means_what_it_says_however_it_is_written(host: Host) -> None:
    await run(host, 10, "print('\u2603\U0001f600\xe9\\u2603 \\\\ \\'\t/\x7f')")
    assert host.output(10) == "\u2603\U0001f600\xe9\u2603 \\ '\t/\x7f\n".encode()
    assert host.is_plain


async def test_output_is_cut_off_where_the_bound_is(host: Host) -> None:
    code = "import sys; print('x' * 9); sys.stderr.write('y' * 10)"
    for number, most in enumerate((0, 1, 9, 10, 11), 10):
        done = await run(host, number, code, max_output=most)
        assert done["truncated"] == (most < 10)
        assert host.output(number) == b"xxxxxxxxx\n"[:most]
        assert host.output(number, frames.STDERR) == b"yyyyyyyyyy"[:most]
    assert host.is_plain


@pytest.mark.parametrize(
    ("op", "epoch"),
    [("run_code", 0), ("run_code", 2), ("run_code", None), ("warm", 0), ("warm", 2), ("bind", 0)],
)
async def test_what_is_of_another_epoch_is_refused(host: Host, op: str, epoch: int | None) -> None:
    fields: dict[str, object] = {} if epoch is None else {"epoch": epoch}
    code = {"code": "1"} if op == "run_code" else {}
    assert (await host.ask(10, op, **fields, **code))["code"] == "stale_epoch"
    assert not host.is_plain
    assert (await run(host, 20, "1"))["exit_code"] == 0


async def test_what_was_cut_off_before_the_change_is_told_after_it(host: Host) -> None:
    code = "print('x' * 50)\n" + WAITS.replace("print('done')", "").replace("'begun'", "''")
    await host.say(request(10, "run_code", epoch=1, code=code, max_output=5))
    while not host.output(10):
        await host.hear()
    await run(host, 20, "import os\nwhile not os.path.exists('go'): pass")
    await let_go(host, 30)
    done = await host.answer(10)
    assert done is not None
    assert done["truncated"]
    assert host.output(10) == b"xxxxx"


async def test_a_run_out_of_credit_waits_for_more_across_the_change(host: Host) -> None:
    await host.say(request(10, "run_code", epoch=1, code=SLOWLY.format(600_000)))
    while len(host.output(10)) < frames.INITIAL_CREDIT:
        await host.hear()
    await host.say(frames.encode_credit(10, 1000))
    while len(host.output(10)) < frames.INITIAL_CREDIT + 1000:
        await host.hear()
    await host.ask(20, "processes", epoch=1)
    assert len(host.output(10)) == frames.INITIAL_CREDIT + 1000
    await host.say(frames.encode_credit(10, 100_000))
    assert await host.answer(10) is not None
    assert len(host.output(10)) == 600_000


async def test_a_run_that_has_used_up_its_credit_to_the_last_byte_is_answered(host: Host) -> None:
    done = await run(host, 10, SLOWLY.format(frames.INITIAL_CREDIT))
    assert done["exit_code"] == 0
    assert len(host.output(10)) == frames.INITIAL_CREDIT


async def test_a_signal_to_a_run_that_has_ended_and_has_output_left_is_dropped(host: Host) -> None:
    size = frames.INITIAL_CREDIT + 1000
    await host.say(request(10, "run_code", epoch=1, code=SLOWLY.format(size)))
    while len(host.output(10)) < frames.INITIAL_CREDIT:
        await host.hear()
    assert census.until(lambda: not children(host), within=60)
    await host.settle()
    await host.say(frames.encode_json(10, frames.CONTROL, {"signal": 9}))
    await host.say(frames.encode_credit(10, 5000))
    done = await host.answer(10)
    assert done is not None
    assert done["exit_code"] == 0
    assert len(host.output(10)) == size


async def test_every_request_is_answered_once_by_a_sandbox_whose_host_did_not_read(
    host: Host,
) -> None:
    asked = range(100, 3000)
    await host.say(b"".join(request(number, "ping") for number in asked))
    await host.settle()
    assert not host.is_plain, "the socket was too large for this test"
    assert [number for number, _, _ in host.heard if number in asked] == list(asked)


async def test_output_that_the_host_did_not_read_at_once_arrives_whole(host: Host) -> None:
    code = "import os\nfor n in range(4000): os.write(1, b'%100d' % n)"
    await host.say(request(10, "run_code", epoch=1, code=code))
    # Nothing is read before it stands still: its process or the host's buffer has come to an end.
    assert census.until(lambda: not host.is_plain or not children(host), within=60)
    assert await host.answer(10) is not None
    assert host.output(10) == b"".join(b"%100d" % n for n in range(4000))


async def test_what_waits_behind_a_warmth_that_is_not_there_yet_is_served(
    templates: NativeBackend,
) -> None:
    async with opened(templates, name=f"plain-{next(numbers)}") as host:
        await host.say(request(1, "warm") + request(2, "ping") + frames.encode(1, frames.CANCEL))
        assert await host.answer(2) == {}
        assert await host.answer(1) is not None
        await host.settle()
        assert [number for number, _, _ in host.heard].count(1) == 1


async def test_a_run_does_not_mind_that_it_comes_before_its_spare_is_ready(
    templates: NativeBackend,
) -> None:
    async with opened(templates, name=f"plain-{next(numbers)}") as host:
        await host.say(
            request(1, "bind", epoch=1) + request(2, "run_code", epoch=1, code="print(1)")
        )
        done = await host.answer(2)
        assert done is not None
        assert (done["exit_code"], host.output(2)) == (0, b"1\n")
        assert host.is_plain
        await host.say(request(3, "run_code", epoch=1, code="print(2)"))
        await host.answer(3)
        assert host.output(3) == b"2\n"


@pytest.mark.parametrize("is_plain", [True, False])
async def test_who_has_asked_for_several_runs_finds_a_spare_for_the_next(
    host: Host, is_plain: bool
) -> None:
    if not is_plain:
        await host.ask(10, "processes", epoch=1)
    found = []
    for number in range(20, 30):
        await run(host, number, "print(1)")
        await host.settle(number + 500)
        found.append(spare := children(host))
    assert any(found), "it is forked before more than that can be asked"
    while not spare:
        spare = children(host)
    # The next run takes it, however far it has come.
    await begin(host, 30)
    assert spare <= children(host)
    if is_plain:
        assert children(host) == spare
    await let_go(host, 40)
    assert await host.answer(30) is not None
    assert host.output(30) == b"begun\ndone\n"


async def test_a_run_leaves_a_spare_to_those_who_wait_for_one(host: Host) -> None:
    await host.ask(10, "processes", epoch=1)
    for number in range(20, 60, 4):
        await run(host, number, "print(1)")
        await host.say(
            request(number + 1, "warm", epoch=1)
            + request(number + 2, "run_code", epoch=1, code=WAITS)
        )
        assert await host.answer(number + 1) == {}
        while b"begun\n" not in host.output(number + 2):
            await host.hear()
        await let_go(host, number + 3)
        assert await host.answer(number + 2) is not None
        await host.ask(number + 500, "file_remove", epoch=1, path="go")


async def test_a_killed_spare_costs_nothing_but_itself(host: Host) -> None:
    (spare,) = children(host)
    os.kill(spare, signal.SIGKILL)
    assert census.until(lambda: spare not in children(host), within=60)
    await run(host, 10, "print(1)")
    assert host.output(10) == b"1\n"
    await host.ask(20, "warm", epoch=1)
    assert not host.is_plain


async def test_no_run_gets_a_spare_that_is_dying(host: Host) -> None:
    for number in range(10, 30, 3):
        assert await host.ask(number, "warm", epoch=1, fully=True) == {}
        kill = request(number + 1, "kill_all", epoch=1)
        run = request(number + 2, "run_code", epoch=1, argv=[], code="print('usable')")
        # The guest reads both at once, before it can learn of any death.
        await host.say(kill + run)
        answer = await host.answer(number + 2)
        assert answer is not None
        assert (answer["exit_code"], host.output(number + 2)) == (0, b"usable\n")


async def test_a_stopped_spare_holds_up_its_run_and_nothing_else(host: Host) -> None:
    (spare,) = children(host)
    os.kill(spare, signal.SIGSTOP)
    await host.say(request(10, "run_code", epoch=1, code="print(1)", timeout=0.2))
    await host.settle()
    done = await host.answer(10)
    assert done is not None
    assert done["timed_out"]
    await run(host, 20, "print(2)")
    assert host.output(20) == b"2\n"


async def test_a_full_disk_is_told_and_leaves_a_sandbox_that_works(
    templates: NativeBackend,
) -> None:
    async with bound(templates, BoxSpec(limits=Limits(disk_mb=4))) as host:
        fill = (
            "try:\n    open('big', 'wb').write(bytes(1 << 24))\nexcept OSError as e: print(e.errno)"
        )
        # At once: the next run finds no spare, and makes one that waits for nothing but its order.
        await host.say(request(10, "run_code", epoch=1, code=fill))
        await host.answer(10)
        refused = await run(host, 20, "print(1)" + " " * 9000)  # what the last code took is free
        assert (refused["code"], refused["errno"]) == ("file_failed", errno.ENOSPC)
        assert host.output(10) == b"%d\n" % errno.ENOSPC
        await host.ask(30, "warm", epoch=1)
        await host.ask(40, "file_remove", epoch=1, path="big")
        await run(host, 50, "print(1)")
        assert host.output(50) == b"1\n"


async def test_a_run_that_cannot_enter_its_directory_fails_and_harms_no_later_one(
    host: Host,
) -> None:
    await run(host, 10, "import os; os.chmod('.', 0)")
    assert (await run(host, 20, "print(1)"))["exit_code"] == 1
    argv = ["chmod", "755", BoxSpec().working_dir]
    assert (await host.ask(30, "exec", epoch=1, argv=argv, cwd="/tmp"))["exit_code"] == 0
    await run(host, 40, "print(2)")
    assert (host.output(20), host.output(40)) == (b"", b"2\n")


async def test_a_sandbox_that_can_open_no_more_lives_on(host: Host) -> None:
    pid = host.birth.pid
    assert pid is not None
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Enough for a guest, but not for what it shares with another spare as well.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (11, before[1]))
    await run(host, 10, "print(1)")
    assert census.until(lambda: not host.is_plain, within=60)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    await run(host, 20, "print(2)")
    assert host.output(20) == b"2\n"


async def test_what_was_given_before_the_change_holds_after_it(templates: NativeBackend) -> None:
    show = "import os; print(*map(os.environ.get, 'ABC'))"
    async with opened(templates, name=f"plain-{next(numbers)}") as host:
        await host.ask(1, "hello", version=1, env={"A": "1", "B": "1"})
        await host.say(request(2, "bind", epoch=3, env={"B": "2", "C": "2"}))
        await host.ask(4, "run_code", epoch=3, code=show, env={"C": "3"})
        assert host.is_plain
        await host.ask(5, "processes", epoch=3)
        for number in (6, 7):
            await host.ask(number, "run_code", epoch=3, code=show)
        stale = await host.ask(8, "run_code", epoch=2, code=show)
        assert [host.output(number) for number in (4, 6, 7)] == [b"1 2 3\n", b"1 2 2\n", b"1 2 2\n"]
        assert stale["code"] == "stale_epoch"


async def test_python_keeps_a_time_of_years(host: Host) -> None:
    await host.ask(10, "processes", epoch=1)
    await begin(host, 20, timeout=315_360_000)
    await host.settle()
    await let_go(host, 30)
    done = await host.answer(20)
    assert done is not None
    assert not done["timed_out"]


async def test_python_answers_every_request_for_warmth(host: Host) -> None:
    await host.ask(10, "processes", epoch=1)
    await host.say(*(request(number, "warm", epoch=1) for number in (20, 30)))
    await host.say(b"".join(request(number, "warm", epoch=1) for number in (40, 50)))
    assert [await host.answer(number) for number in (20, 30, 40, 50)] == [{}] * 4


@pytest.mark.root
async def test_process_1_never_waits_for_a_pipe_that_a_tenant_can_empty(host: Host) -> None:
    def waits_for() -> list[str]:
        found = []
        for name in os.listdir(f"/proc/{host.birth.pid}/fd"):
            info = Path(f"/proc/{host.birth.pid}/fdinfo/{name}").read_text()
            flags = int(info.split("flags:")[1].split()[0], 8)
            is_read = flags & os.O_ACCMODE == os.O_RDONLY
            is_pipe = os.readlink(f"/proc/{host.birth.pid}/fd/{name}").startswith("pipe:")
            if is_pipe and is_read and not flags & os.O_NONBLOCK:
                found.append(name)
        return found

    assert waits_for() == []
    await run(host, 10, "print(1)")
    await host.ask(20, "warm", epoch=1)
    assert host.is_plain
    assert waits_for() == []


# ---- What sandboxes are made ready for ----


def serves_plainly(box: Box) -> bool:
    keeper: Any = box.__dict__["_keeper"]
    return conversation.serves_plainly(keeper.birth.pid)


async def test_sandboxes_are_made_ready_for_what_the_last_ones_were_used_for() -> None:
    backend = NativeBackend()

    async def use(epoch: int, *, is_plain: bool) -> bool:
        """Use a sandbox; return whether it was made ready for plain use."""
        box = await backend.create(BoxSpec(), box_id=f"used-{epoch}")
        was_plain = serves_plainly(box)
        await box.bind(Binding(epoch=epoch))
        if is_plain:
            await box.run_code("print(1)", RunOptions(timeout=60))
        else:
            await box.exec(RunOptions(argv=("true",)))
        await box.destroy()
        return was_plain

    try:
        assert await use(1, is_plain=False)
        assert not await use(2, is_plain=True), "the last one was a surprise"
        epochs = range(3, 12)
        ready = [await use(epoch, is_plain=True) for epoch in epochs]
        assert ready[-1], "a surprise is forgotten some day"
        assert sorted(ready) == ready
    finally:
        await backend.aclose()
