"""`run_code` against `python3 script.py`, in the same sandbox, on a corpus of scripts."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator

import pytest

from sandpool.backends.base import Box, BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.models import ExecResult
from tests.fidelity.corpus import CORPUS, Script

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

SCRIPT = "/sandbox/main.py"
_OWN_PATH = re.compile(r"/run/sandpool/\d+/main\.py")
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_DEPTH = re.compile(r"Previous line repeated 9[89]\d more times")
"""A recursion ends a few calls earlier, because a few frames of the guest's lie below it."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def box(anyio_backend: str) -> AsyncIterator[Box]:
    backend = NativeBackend()
    try:
        box = await backend.create(BoxSpec(), box_id="fidelity")
        await box.write_file("neighbour.py", b"VALUE = 7\n")
        yield box
    finally:
        await backend.aclose()


def essence(result: ExecResult) -> tuple[int, int | None, str, str]:
    """Return what must be the same, where names that differ for a reason are made alike."""

    def plain(text: str) -> str:
        text = _ADDRESS.sub("0x…", _OWN_PATH.sub(SCRIPT, text))
        return _DEPTH.sub("Previous line repeated many more times", text)

    return result.exit_code, result.signal, plain(result.stdout), plain(result.stderr)


@pytest.mark.parametrize("name", CORPUS)
async def test_a_script_that(box: Box, name: str) -> None:
    script: Script = CORPUS[name]
    await box.write_file(SCRIPT, script.code.encode())
    common = {"env": dict(script.env), "stdin": script.stdin, "timeout": 15.0}
    reference = await box.exec(
        RunOptions(argv=(sys.executable, SCRIPT, *script.argv), **common)  # type: ignore[arg-type]
    )
    result = await box.run_code(
        script.code,
        RunOptions(argv=script.argv, **common),  # type: ignore[arg-type]
    )
    assert essence(result) == essence(reference)
