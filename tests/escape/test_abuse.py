"""A tenant that takes all it can get leaves its neighbours their share.

What the neighbours notice is printed, not asserted: other work on this machine is in it too.
"""

from __future__ import annotations

import statistics
import time

import anyio
import pytest

from sandpool.backends.base import Box, BoxSpec, Limits, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.errors import SandboxDied

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces, pytest.mark.slow]

NEIGHBOURS = 4
ROUNDS = 15
SPEC = BoxSpec(limits=Limits(memory_mb=128, pids=64, disk_mb=32, inodes=20_000, open_files=256))

ABUSES = {
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "a fork bomb of new sessions": (
        "import os\nwhile True:\n    try:\n        if os.fork() == 0: os.setsid()\n"
        "    except OSError: pass"
    ),
    "a memory bomb": "hoard = []\nwhile True: hoard.append(bytearray(1 << 22))",
    "a full disk": (
        "data = bytes(1 << 20)\nwhile True:\n    try: open('f', 'ab', 0).write(data)\n"
        "    except OSError: open('f', 'wb')"
    ),
    "all inodes": (
        "number = 0\nwhile True:\n    number += 1\n    try: open(str(number), 'w').close()\n"
        "    except OSError: pass"
    ),
    "all descriptors": (
        "import os\nwhile True:\n    try: os.dup(0)\n    except OSError: os.closerange(3, 10**6)"
    ),
    "endless output": "while True: print('x' * 10_000)",
    "endless computing": "while True: pass",
    "computing in every process it may have": (
        "import os\nfor _ in range(50): os.fork() or exec('while True: pass')"
    ),
    "ten thousand small files": (
        "import os\nwhile True:\n    for n in range(10_000): open(str(n), 'w').write('x')\n"
        "    for n in range(10_000): os.unlink(str(n))"
    ),
    "deep directories": (
        "import os, shutil\nwhile True:\n    os.chdir('/sandbox')\n    try:\n"
        "        while True:\n            os.mkdir('d')\n            os.chdir('d')\n"
        "    except OSError: os.chdir('/sandbox')\n"
        "    os.system('rm -rf d')"
    ),
    "huge arguments": (
        "import os, subprocess\nwhile True:\n    try:\n"
        "        subprocess.run(['true', *['x' * 100_000] * 30], env={'X': 'y' * 100_000})\n"
        "    except OSError: pass"
    ),
    "signals to everybody": (
        "import os\nwhile True:\n    for n in range(1, 40):\n        try:\n"
        "            if n != os.getpid(): os.kill(n, 9)\n        except OSError: pass"
    ),
}


async def work(box: Box, times: list[float]) -> None:
    """Do what a well-behaved tenant does, and note how long each time took."""
    for number in range(ROUNDS):
        begun = time.perf_counter()
        result = await box.run_code(f"print({number})", RunOptions(timeout=60))
        times.append(time.perf_counter() - begun)
        assert result.stdout == f"{number}\n"


async def together(boxes: list[Box]) -> list[float]:
    times: list[float] = []
    async with anyio.create_task_group() as group:
        for box in boxes:
            group.start_soon(work, box, times)
    return times


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] * 1000


@pytest.mark.parametrize("abuse", ABUSES)
async def test_neighbours_live_with(
    backend: NativeBackend, abuse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes: list[Box] = [
        await backend.create(SPEC, box_id=f"good{number}") for number in range(NEIGHBOURS)
    ]
    bad = await backend.create(SPEC, box_id="bad")
    before = await together(boxes)

    async def misbehave() -> None:
        try:
            await bad.run_code(ABUSES[abuse], RunOptions(max_output=10_000))
        except SandboxDied:
            return  # it has only harmed itself

    async with anyio.create_task_group() as group:
        group.start_soon(misbehave)
        during = await together(boxes)
        group.cancel_scope.cancel()
    with capsys.disabled():
        print(  # noqa: T201 (this is the report)
            f"\n  {abuse}: neighbours' p99 {p99(before):.1f} ms, meanwhile {p99(during):.1f} ms"
        )
    for box in [bad, *boxes]:
        await box.destroy()
