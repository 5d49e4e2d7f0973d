"""The command line where no sandbox is needed: options, errors, help and the doctor's verdict."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from sandpool.cli import exits
from sandpool.cli.app import app

COMMANDS = ("doctor", "demo", "bench", "run", "serve", "deploy", "check", "claim")


def sandpool(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(autouse=True)
def called_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide pytest's own command line, which may have a `--` in it."""
    monkeypatch.setattr(sys, "argv", ["sandpool"])


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_how(command: str) -> None:
    done = sandpool(command, "--help")
    assert done.exit_code == exits.OK
    assert f"sandpool {command}" in done.stdout
    assert command in sandpool("--help").stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("bench", ("--json", "--quick", "--suite", "--repeats", "--samples", "--cycles")),
        ("bench", ("--callers", "--seed", "--soak-minutes", "--out", "--results")),
        ("demo", ("--json", "--cycles", "--callers")),
        ("run", ("-c", "--image", "--preload", "--env", "--timeout", "--memory-mb", "--pids")),
        ("doctor", ("--json",)),
    ],
)
def test_every_option_is_in_the_help(command: str, options: tuple[str, ...]) -> None:
    said = sandpool(command, "--help").stdout
    assert [option for option in options if option not in said] == []


def test_the_help_of_run_names_the_exit_codes() -> None:
    said = sandpool("run", "--help").stdout
    assert str(exits.TIMED_OUT) in said
    assert str(exits.OURS) in said


def test_without_a_command_there_is_help() -> None:
    done = sandpool()
    assert done.exit_code == exits.USAGE
    assert all(command in done.output for command in COMMANDS)


# --- what cannot be meant -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "nonsense"),
        (("run",), "give a script"),
        (("run", "/no/such/script.py"), "/no/such/script.py cannot be read"),
        (("run", "/"), "cannot be read"),
        (("run", "--env", "X", "-c", "1"), "NAME=VALUE"),
        (("run", "--env", "=1", "-c", "1"), "NAME=VALUE"),
        (("run", "--nonsense", "-c", "1"), "nonsense"),
        (("run", "--timeout", "soon", "-c", "1"), "--timeout"),
        (("run", "--memory-mb", "1", "-c", "1"), "--memory-mb"),
        (("run", "--cpus", "0", "-c", "1"), "--cpus"),
        (("run", "--cpus", "nan", "-c", "1"), "--cpus"),
        (("run", "--pids", "1", "-c", "1"), "--pids"),
        (("run", "--disk-mb", "0", "-c", "1"), "--disk-mb"),
        (("bench", "--samples", "1"), "--samples"),
        (("bench", "--cycles", "1"), "--cycles"),
        (("bench", "--repeats", "0"), "--repeats"),
        (("bench", "--soak-minutes", "0"), "--soak-minutes"),
        (("demo", "--callers", "0"), "--callers"),
        (("demo", "--callers", "257"), "--callers"),
        (("demo", "--cycles", "x"), "--cycles"),
        (("doctor", "now"), "now"),
    ],
)
def test_what_cannot_be_meant_is_named_and_nothing_runs(
    arguments: tuple[str, ...], said: str
) -> None:
    done = sandpool(*arguments)
    assert done.exit_code == exits.USAGE
    assert said in done.stderr
    assert done.stdout == ""


def test_a_command_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sandpool", "run", "--"])
    done = sandpool("run", "--")
    assert done.exit_code == exits.USAGE
    assert "give a command" in done.stderr


def test_a_script_that_is_no_text_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(b"print(1) # \xff")
    done = sandpool("run", str(script))
    assert done.exit_code == exits.USAGE
    assert "script.py cannot be read" in done.stderr


# --- the doctor -----------------------------------------------------------------------------------


def test_the_doctor_fails_where_the_library_is_missing_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    done = sandpool("doctor")
    assert done.exit_code == exits.UNUSABLE
    assert "native sandboxes: not on this host" in done.stdout
    assert "problem: libseccomp is missing" in done.stdout
    assert "remedy: Install libseccomp" in done.stdout


def test_the_doctor_tells_programs_the_same_as_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    done = sandpool("doctor", "--json")
    assert done.exit_code == exits.UNUSABLE
    report = json.loads(done.stdout)
    assert set(report) == {"ok", "problems", "remedies", "facts"}
    assert report["ok"] is False
    said = sandpool("doctor").stdout
    for line in report["problems"] + report["remedies"]:
        assert line in said


ROOT = Path(__file__).parents[3]
EVERYWHERE = {"--help", "--url", "--api-key", "--install-completion", "--show-completion"}


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Find the commands that do something: the words that lead to each, and its long options."""
    for name, found in getattr(command, "commands", {}).items():
        yield from commands(found, (*words, name))
    if not hasattr(command, "commands"):
        options = {word for each in command.params for word in each.opts if word.startswith("--")}
        yield " ".join(words), options - EVERYWHERE


@pytest.mark.parametrize(
    ("words", "options"),
    [pytest.param(*found, id=found[0]) for found in commands(typer.main.get_command(app))],
)
def test_the_reference_has_every_command_with_its_options(words: str, options: set[str]) -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert re.search(rf"`{words}[ `]", page)
    assert [name for name in options if not re.search(rf"`--(no-)?{name[2:]}[ `]", page)] == []
