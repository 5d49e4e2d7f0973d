"""The compiled guest, against whatever host, kernel and spare: it keeps within its memory.

`plain_harness.c` says what is checked.  What it answers is compared with Python's answers in
`tests/integration/native/test_plain.py`.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from sandpool.backends.native import template
from sandpool.guest import frames
from tests.compilers import compile_with_sanitizers

HARNESS = Path(__file__).with_name("plain_harness.c")
ROUNDS = 5_000

LONG = "\\ud83d\\ude00" * 5_000
CODES = (
    "",
    "print(1)",
    '\\u0000\\ud83d\\ude00\\ud83d\\u2603\\"\\\\\\/\\b\\f\\n\\r\\t\\ude00',
    "x" * 60_000,
    LONG,
)
ENVIRONMENTS = (
    "{}",
    '{"A":"b","C":null}',
    '{"A":"\\"\\\\\\/\\b\\f\\n\\r\\t"}',
    '{"A":"%s"}' % ("x" * 30_000),
)


def texts() -> list[str]:
    """Return requests, plain or nearly so, of a sandbox that is or is not bound to epoch 1."""
    bound, unbound = ',"epoch":1', ""
    found = [f'{{"op":"hello","version":1,"env":{env}}}' for env in ENVIRONMENTS]
    found += ['{"op":"hello","version":1}', '{"op":"ping"}', '{"op":"ping","epoch":123456789}']
    found += [f'{{"op":"bind"{bound},"env":{env}}}' for env in ENVIRONMENTS]
    found += ['{"op":"bind","epoch":1}', '{"op":"bind","epoch":99999999999999999999999}']
    for epoch in (bound, unbound):
        found += [f'{{"op":"warm"{epoch}}}']
        found += [f'{{"op":"run_code","code":"{code}"{epoch}}}' for code in CODES]
        found += [
            f'{{"op":"run_code","code":"1"{epoch},"timeout":0.003,"max_output":0}}',
            f'{{"op":"run_code","code":"1"{epoch},"timeout":{"9" * 50}.{"9" * 50}}}',
            f'{{"op":"run_code","code":"1","max_output":10{epoch}}}',
            f'{{"op":"run_code","env":{ENVIRONMENTS[1]},"code":"1"{epoch}}}',
            f'{{"op":"run_code","env":{ENVIRONMENTS[3]},"code":"1"{epoch}}}',
        ]
    return found


def seeds() -> list[bytes]:
    """Return frames to begin with, and rows of them that fill what there is to fill."""
    number = itertools.cycle(range(1, 6))
    found = [frames.encode(next(number), frames.REQUEST, text.encode()) for text in texts()]
    found += [frames.encode_credit(next(number), 1 << 31) for _ in range(5)]
    found += [frames.encode(one, kind) for one, kind in [(1, frames.CANCEL), (2, frames.EOF)]]
    # Of one that serves for long, and so comes to more than its first frames.
    often = [one for one in found if b'"ping"' in one or b'"code":"1"' in one or b"bind" in one]
    found += [one for one in often if len(one) < 100]
    bindings = [frames.encode_json(1, frames.REQUEST, {"op": "bind", "epoch": 1})] * 80
    env = {"env": {"A": "x" * 30_000}}
    large: list[dict[str, object]] = [
        {"op": "hello", "version": 1, **env},
        {"op": "bind", "epoch": 1, **env},
        {"op": "run_code", "epoch": 1, "code": "1", **env},
    ]
    rows = bindings, [frames.encode_json(1, frames.REQUEST, one) for one in large]
    return found + [b"".join(row) for row in rows]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("harness") / "plain_harness"
    compile_with_sanitizers(HARNESS, made, Path(template.__file__).parent)
    return made


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_compiled_guest_keeps_within_its_memory(
    harness: Path, tmp_path: Path, seed: int
) -> None:
    files: list[str] = []
    for index, seed_frame in enumerate(seeds()):
        path = tmp_path / f"{index:03}"
        path.write_bytes(seed_frame)
        files.append(str(path))
    rounds = ROUNDS if seed == 1 else 4 * ROUNDS
    done = subprocess.run(
        [str(harness), str(seed), str(rounds), *files],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
