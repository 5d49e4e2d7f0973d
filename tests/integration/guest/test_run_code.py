"""Python code: it ends as `python3 file` would, and knows nothing of the runs before it.

That its output is the same as an interpreter's, byte for byte, is what `tests/fidelity` compares.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from sandpool.backends.base import Box, RunOptions
from sandpool.models import ExecResult
from tests.integration.guest.conftest import MakeBox

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0


async def python(box: Box, code: str, *argv: str, stdin: bytes = b"") -> ExecResult:
    return await box.run_code(code, RunOptions(argv=argv, stdin=stdin, timeout=LIMIT))


def new_interpreter(script: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, script], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("", 0, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("raise SystemExit(256 + 3)", 3, ""),
        ("import os; os._exit(9)", 9, ""),
        ("exit(5)", 5, ""),
        ("import atexit; atexit.register(print, 'bye'); raise SystemExit(2)", 2, ""),
    ],
)
async def test_code_ends_with_the_exit_code_it_asks_for(
    box: Box, code: str, exit_code: int, stderr: str
) -> None:
    result = await python(box, code)
    assert (result.exit_code, result.stderr, result.signal) == (exit_code, stderr, None)


async def test_an_exception_is_told_on_stderr_and_shows_the_line(box: Box) -> None:
    result = await python(box, "print('before')\ndef f():\n    return 1 / 0\nf()\n")
    assert (result.exit_code, result.stdout) == (1, "before\n")
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert "return 1 / 0\n" in result.stderr
    assert result.stderr.endswith("\nZeroDivisionError: division by zero\n")


async def test_a_traceback_shows_no_frame_of_ours(box: Box) -> None:
    result = await python(box, "def f():\n    raise KeyError('x')\nf()\n")
    assert result.stderr.count('File "') == 2


@pytest.mark.parametrize("code", ["def f(:\n", "print('open", "x = 1\n  y = 2\n", "return 1"])
async def test_code_that_is_not_python_is_a_syntax_error(box: Box, code: str) -> None:
    result = await python(box, f"print('never')\n{code}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: " in result.stderr.splitlines()[-1]


async def test_a_nul_in_code_is_what_the_interpreter_makes_of_it(box: Box, tmp_path: Path) -> None:
    code = "print(1)\0print(2)"
    script = tmp_path / "main.py"
    script.write_text(code)
    expected = new_interpreter(script)
    result = await python(box, code)
    # Releases differ: some read up to it, others refuse the file.
    assert (result.exit_code, result.stdout.encode()) == (expected.returncode, expected.stdout)


async def test_arguments_and_input_arrive(box: Box) -> None:
    result = await python(
        box, "import sys; print(sys.argv[1:], sys.stdin.read(), input)", "a b", "", stdin=b"in\nput"
    )
    assert result.stdout == "['a b', ''] in\nput <built-in function input>\n"


async def test_input_that_was_not_given_has_ended(box: Box) -> None:
    result = await python(box, "input()")
    assert result.exit_code == 1
    assert "EOFError" in result.stderr


async def test_long_code_runs_like_short_code(box: Box) -> None:
    text = "x" * 300_000
    result = await python(box, f"text = {text!r}\nimport sys; print(len(text), sys.stdin.read())")
    assert result.stdout == "300000 \n"
    with_input = await python(box, f"t = {text!r}\nprint(input())", stdin=b"after the code\n")
    assert with_input.stdout == "after the code\n"


async def test_much_output_arrives_whole(box: Box) -> None:
    code = "import sys\nfor n in range(200000): print(n)\nprint('e' * 200000, file=sys.stderr)"
    result = await box.run_code(code, RunOptions(max_output=None, timeout=LIMIT))
    assert result.stdout == "".join(f"{n}\n" for n in range(200_000))
    assert result.stderr == "e" * 200_000 + "\n"
    assert not result.truncated


async def test_much_output_is_cut_where_it_was_asked_for(box: Box) -> None:
    result = await box.run_code("print('x' * 5_000_000)", RunOptions(max_output=10, timeout=LIMIT))
    assert (result.stdout, result.truncated, result.exit_code) == ("x" * 10, True, 0)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\nwhile True:\n    try: time.sleep(100)\n    except BaseException: pass",
        "import threading\nthreading.Thread(target=threading.Event().wait).start()",
        "import os\nif os.fork() == 0:\n    os.setsid()\nwhile True: pass",
    ],
    ids=["busy", "stubborn", "thread", "fork"],
)
async def test_a_timeout_ends_code_whatever_it_does(box: Box, code: str) -> None:
    result = await box.run_code(code, RunOptions(timeout=0.05))
    assert (result.timed_out, result.exit_code, result.signal) == (True, 137, 9)
    assert (await python(box, "print('usable')")).stdout == "usable\n"


async def test_what_was_printed_before_a_timeout_is_there(box: Box) -> None:
    code = "print('before', flush=True)\nwhile True: pass"
    result = await box.run_code(code, RunOptions(timeout=0.15))
    assert (result.stdout, result.timed_out) == ("before\n", True)


async def test_runs_do_not_see_one_anothers_state(box: Box) -> None:
    first = (
        "import builtins, decimal, os, signal, sys, warnings\n"
        "x = builtins.y = sys.z = 1\n"
        "sys.path.append('/mine'); sys.modules['json'] = None\n"
        "os.environ['MINE'] = '1'; os.chdir('/'); os.umask(0o777)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.setrecursionlimit(50); decimal.getcontext().prec = 3\n"
    )
    second = (
        "import builtins, decimal, json, os, signal, sys\n"
        "print('x' in globals(), hasattr(builtins, 'y'), hasattr(sys, 'z'))\n"
        "print('/mine' in sys.path, os.environ.get('MINE'), os.getcwd(), os.umask(0) == 0o777)\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, sys.getrecursionlimit() > 50)\n"
        "print(decimal.getcontext().prec)\n"
    )
    assert (await python(box, first)).ok
    result = await python(box, second)
    assert result.stdout == "False False False\nFalse None /sandbox False\nTrue True\n28\n"


async def test_runs_side_by_side_are_apart(box: Box) -> None:
    results: dict[int, str] = {}

    async def run(number: int) -> None:
        code = f"import os; x = {number}; print(x, input())"
        results[number] = (await python(box, code, stdin=b"%d\n" % number)).stdout

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(run, number)
    assert results == {number: f"{number} {number}\n" for number in range(12)}


async def test_two_sandboxes_of_one_template_draw_different_numbers(make_box: MakeBox) -> None:
    code = (
        "import os, random, secrets, tempfile, uuid\n"
        "print(random.random(), random.getrandbits(64))\n"
        "print(os.urandom(8).hex())\n"
        "print(uuid.uuid4(), uuid.uuid1())\n"
        "print(secrets.token_hex(8))\n"
        "print(next(tempfile._get_candidate_names()))\n"
    )
    boxes = [await make_box() for _ in range(2)]
    lines = [
        line
        for box in boxes
        for _ in range(2)
        for line in (await python(box, code)).stdout.splitlines()
    ]
    assert len(lines) == len(set(lines)) == 2 * 2 * 5


async def test_code_left_by_a_run_is_not_there_for_the_next(box: Box) -> None:
    where = (await python(box, "secret = 1; print(__file__)")).stdout.strip()
    code = (
        "import glob, os; top = os.path.dirname(os.path.dirname(__file__))\n"
        "print(glob.glob(top + '/**/*.py', recursive=True), __file__, open(__file__).read())"
    )
    result = await python(box, code)
    assert result.stdout == f"[{where!r}] {where} {code}\n", "and its place is the next one's"


async def test_signals_are_written_to_no_descriptor_of_a_tenants(box: Box) -> None:
    code = "import signal; print(signal.set_wakeup_fd(-1))"
    for _ in range(3):  # by the first spare, and by those that follow
        assert (await python(box, code)).stdout == "-1\n"


async def test_a_cancelled_run_leaves_the_sandbox_usable(box: Box) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(python, box, "open('/sandbox/up', 'w').close()\nwhile True: pass")
        while not await box.list_files("/sandbox"):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert await box.kill_all() == 0
    assert (await python(box, "print('usable')")).stdout == "usable\n"


async def test_a_spare_that_the_tenant_killed_is_replaced(box: Box) -> None:
    code = (
        "import os, signal\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    if int(pid) not in (1, os.getpid()):\n"
        "        try: os.kill(int(pid), signal.SIGKILL)\n"
        "        except OSError: continue\n"
        "print('done')\n"
    )
    for _ in range(4):
        result = await python(box, code)
        # The signal may still be on its way when the next run takes the spare that it is for.
        assert result.stdout == "done\n" or result.signal == signal.SIGKILL, result
        while (result := await python(box, "print('usable')")).signal == signal.SIGKILL:
            continue
        assert result.stdout == "usable\n"


async def test_code_cannot_end_the_guest(box: Box) -> None:
    code = (
        "import os, signal\n"
        "for pid, number in [(1, 9), (1, 15), (1, 19), (-1, 9), (0, 9)]:\n"
        "    try: os.kill(pid, number)\n"
        "    except OSError: pass\n"
    )
    assert (await python(box, code)).signal == 9
    assert (await python(box, "print('usable')")).stdout == "usable\n"


async def test_a_run_right_after_a_killed_one_finds_the_guest_alive(box: Box) -> None:
    for _ in range(4):
        late = await box.run_code("import time; time.sleep(100)", RunOptions(timeout=0.02))
        assert late.timed_out
        assert (await python(box, "print('usable')")).stdout == "usable\n"
