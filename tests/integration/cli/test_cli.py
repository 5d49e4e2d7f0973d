"""The command line, called as people call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.namespaces

Done = subprocess.CompletedProcess[str]


def sandpool(*arguments: str, given: str = "") -> Done:
    return subprocess.run(
        [sys.executable, "-m", "sandpool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=18,
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


def test_a_run_is_killed_after_its_timeout() -> None:
    done = sandpool("run", "--timeout", "0.2", "-c", "while True: pass")
    assert done.returncode == 124
    assert "killed after" in done.stderr


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
        (("run",), 2, "give a script"),
        (("run", "--"), 2, "give a command"),
        (("run", "/no/such/script.py"), 2, "cannot be read"),
        (("run", "--env", "X", "-c", "1"), 2, "NAME=VALUE"),
        (("run", "--memory-mb", "1", "-c", "1"), 2, "memory-mb"),
        (("run", "--image", "/no/such/root", "-c", "1"), 125, "/no/such/root"),
        (("run", "--preload", "no_such_module", "-c", "1"), 125, "no_such_module"),
        (("run", "--nonsense", "-c", "1"), 2, "nonsense"),
        (("nonsense",), 2, "nonsense"),
        (("bench", "--samples", "1"), 2, "samples"),
    ],
)
def test_bad_input_gets_one_clear_error(arguments: tuple[str, ...], code: int, said: str) -> None:
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
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 130
    assert errors.endswith("KeyboardInterrupt\n")


def test_doctor_says_that_this_host_can() -> None:
    done = sandpool("doctor")
    assert done.returncode == 0
    assert "native sandboxes: ready" in done.stdout
    report = json.loads(sandpool("doctor", "--json").stdout)
    assert report["ok"] is True
    assert report["facts"]["seccomp"] == "libseccomp"


def test_the_demo_does_the_main_job_and_measures_it() -> None:
    done = sandpool("demo", "--json", "--callers", "2", "--cycles", "4")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["is_pristine"] is True
    assert all(value > 0 for key, value in report.items() if key.endswith("_ms"))


@pytest.mark.slow
def test_the_bench_measures_against_baselines_of_the_same_run() -> None:
    done = sandpool("bench", "--json", "--samples", "5", "--cycles", "10", "--callers", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["host"]["kernel"]
    assert any(result["unit"] == "times" for result in report["results"])
