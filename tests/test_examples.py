"""The examples run as they are, and say what they are meant to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

OUTPUTS = {
    "evaluate": [
        "right    passed",
        "wrong    AssertionError",
        "endless  took too long",
        "greedy   MemoryError",
        "broken   SyntaxError",
    ],
    "interpreter": [
        "[1] - | None",
        "[2] - | 3.875",
        "[3] sorted: [1, 1, 2, 3, 4, 5, 6, 9] | 9",
        "[4] - | TypeError unsupported operand type(s) for /: 'list' and 'int'",
        "[5] - | 8",
    ],
    "rollouts": ["40 scored, mean reward 0.75"],
    "agent": [
        "file_operation: success: File written successfully: /sandbox/n.txt",
        "python_executor: error: TypeError: can't multiply sequence by non-int of type 'str'",
        "python_executor: success: 42",
        "It is 42.",
    ],
    "blocking": ["first ok", "", "second ok", ""],
    "directory_server": [
        "3 in the pool, 3 healthy",
        *(["['hello.txt', 'notes/']", "time enough: True", "3 in the pool, 3 healthy"] * 2),
        "two servers: True",
    ],
    "slow_service": [
        "claimed 2 that were up, waited for 0",
        "[1] -",
        "[2] 42",
        "[3] ZeroDivisionError: division by zero",
        "[4] still 42",
        "[1] NameError: name 'x' is not defined",
    ],
    "local_index": [
        "hello, world 1.0",
        "ERROR: No matching distribution found for farewell",
    ],
}


@pytest.mark.namespaces
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "rollouts" else pytest.mark.slow) for name in OUTPUTS],
)
def test_an_example_says_what_it_is_meant_to(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == OUTPUTS[name]


def test_every_example_is_run_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(OUTPUTS)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({name}.py)" in listed for name in names)
