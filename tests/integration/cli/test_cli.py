"""The command line, called as people call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandpool.cli import exits

pytestmark = pytest.mark.namespaces

Done = subprocess.CompletedProcess[str]


def sandpool(*arguments: str, given: str = "", timeout: float = 100) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "sandpool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def test_a_script_gets_its_arguments_options_included(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import sys; print(sys.argv[1:], __name__)")
    done = sandpool("run", "--env", "X=1", str(script), "a", "--timeout", "--", "-x")
    assert done.stdout == "['a', '--timeout', '--', '-x'] __main__\n"
    assert done.returncode == 0


def test_code_reads_our_input_and_ends_with_its_own_code() -> None:
    code = "import os, sys; print(sys.stdin.read().upper(), os.environ['X']); sys.exit(7)"
    done = sandpool("run", "--env", "X=a=b", "-c", code, given="hello")
    assert (done.stdout, done.returncode) == ("HELLO a=b\n", 7)


def test_a_command_is_run_as_it_is() -> None:
    done = sandpool("run", "--", "sh", "-c", "echo $0; echo error >&2; kill -9 $$", "name")
    assert (done.stdout, done.stderr, done.returncode) == ("name\n", "error\n", 137)


def test_a_run_is_killed_after_its_timeout_and_what_it_said_was_said() -> None:
    code = "import sys, time; print('out'); print('err', file=sys.stderr); time.sleep(100)"
    done = sandpool("run", "--timeout", "0.5", "--env", "PYTHONUNBUFFERED=1", "-c", code)
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\nsandpool: killed after")
    assert done.returncode == exits.TIMED_OUT


@pytest.mark.slow
def test_what_needs_more_memory_than_it_has_gets_none() -> None:
    done = sandpool("run", "--memory-mb", "32", "-c", "x = bytearray(1 << 28); print(len(x))")
    # A kill where a control group counts, an exception where only single processes are limited.
    assert done.stdout == ""
    assert (done.returncode, done.stderr.splitlines()[-1]) in (
        (137, "sandpool: killed for its memory limit"),
        (1, "MemoryError"),
    )


def test_bytes_go_through_as_they_are(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    given = tmp_path / "given"
    given.write_bytes(data)
    with given.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "sandpool", "run", "--", "cat"],
            stdin=stdin,
            capture_output=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_a_script_that_fails_fails_as_python_does(tmp_path: Path) -> None:
    script = tmp_path / "fail.py"
    script.write_text("def f():\n    raise ValueError('no')\n\nf()\n")
    done = sandpool("run", str(script))
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ValueError: no\n")


def test_what_a_run_writes_is_not_on_this_machine(tmp_path: Path) -> None:
    code = (
        f"import os; os.makedirs({str(tmp_path)!r}); path = {str(tmp_path / 'made')!r}\n"
        "open(path, 'w').close(); print(os.path.exists(path))"
    )
    done = sandpool("run", "-c", code)
    assert done.stdout == "True\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_limits_hold() -> None:
    done = sandpool("run", "--disk-mb", "1", "-c", "open('f', 'wb').write(bytes(1 << 21))")
    assert done.returncode != 0
    assert "Errno" in done.stderr


def test_what_is_preloaded_is_there() -> None:
    code = "import sys; print('decimal' in sys.modules)"
    assert sandpool("run", "--preload", "decimal", "-c", code).stdout == "True\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "/no/such/script.py"), exits.USAGE, "cannot be read"),
        (("run", "--image", "/no/such/root", "-c", "1"), exits.OURS, "/no/such/root"),
        (("run", "--preload", "no_such_module", "-c", "1"), exits.OURS, "no_such_module"),
    ],
)
def test_what_cannot_run_gets_one_clear_error(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = sandpool(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_interrupt_reaches_the_command_and_is_its_own_to_answer() -> None:
    code = "import signal, time\nprint('up', flush=True)\ntime.sleep(100)"
    with subprocess.Popen(
        [sys.executable, "-m", "sandpool", "run", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    assert program.returncode == 130
    assert errors.endswith("KeyboardInterrupt\n")


def test_doctor_says_that_this_host_can() -> None:
    done = sandpool("doctor")
    assert done.returncode == exits.OK
    assert "native sandboxes: ready" in done.stdout
    report = json.loads(sandpool("doctor", "--json").stdout)
    assert report["ok"] is True
    assert report["facts"]["seccomp"] == "libseccomp"


WITHOUT_NAMESPACES = """
import errno, sys
import pyseccomp as lib
filter_ = lib.SyscallFilter(defaction=lib.ALLOW)
filter_.add_rule(lib.ERRNO(errno.EPERM), "unshare")
filter_.load()
from sandpool.cli import main
main()
"""
"""Takes away from the command line what a distribution takes away from all its programs."""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("doctor",), exits.UNUSABLE, "namespaces are refused"),
        (("run", "-c", "print(1)"), exits.OURS, "namespaces are refused"),
        pytest.param(
            ("demo",), exits.OURS, "namespaces are refused", marks=pytest.mark.slow, id="demo"
        ),
        pytest.param(
            ("bench",), exits.OURS, "namespaces are refused", marks=pytest.mark.slow, id="bench"
        ),
    ],
)
def test_where_the_host_cannot_every_command_says_so(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_does_the_main_job_and_measures_it() -> None:
    done = sandpool("demo", "--json", "--callers", "2", "--cycles", "4")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["is_pristine"] is True
    assert all(value > 0 for key, value in report.items() if key.endswith("_ms"))
    names = [step["name"].split()[0] for step in report["service"]]
    assert names == ["deploy", "check", "claim", "GET", "check", "claim", "GET", "check"]
