"""A template forks, reaps and ends its sandboxes alike whether that is compiled or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandpool.backends.native.template import branch
from tests.copies import copy_sandpool, run_with_copy

pytestmark = pytest.mark.namespaces

LIBRARY = "backends/native/template/libbranch.so.1"

LIFE = """
import asyncio, json, os, signal
from dataclasses import replace
from pathlib import Path
from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.errors import SandpoolError

MANY = 70  # more than a template has places for at first
NETWORK = "import os; print(os.readlink('/proc/self/ns/net'))\\n"
DATAGRAM = "import socket; socket.socket(type=2).sendto(b'x', ('127.0.0.1', 9))\\n"
WRITE = "try: print(open('/tmp/x', 'wb').write(bytes(2 << 20)))\\n" \
    "except OSError as error: print(error.errno)\\n"

def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

def faults(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])

async def main():
    backend, told = NativeBackend(), {}

    async def make(name):
        return await backend.create(BoxSpec(), box_id=name)

    async def tell(box, code):
        return (await box.run_code(code, RunOptions(timeout=20))).stdout.strip()

    async def live(name, code):
        box = await make(name)
        said = await tell(box, code)
        await box.destroy()
        return said

    try:
        await live("first", "")
        template = children(children(os.getpid())[0])[0]
        boxes = [await make(f"one of many {index}") for index in range(MANY)]
        told["made"] = len(children(template))
        told["networks"] = len({await tell(box, NETWORK) for box in boxes})
        os.kill(children(template)[MANY // 2], signal.SIGKILL)
        while len(children(template)) == MANY:
            await asyncio.sleep(0)
        told["ended by themselves"] = []
        for index, box in enumerate(boxes):
            try:
                await tell(box, "")
            except SandpoolError as error:
                told["ended by themselves"].append([index, type(error).__name__])
            await box.destroy()
        told["left"] = children(template)
        before = faults(template)
        for index in range(20):
            await live(f"in a row {index}", "")
        told["faults"] = (faults(template) - before) / 20
        clean, used, last = [
            await live(code, NETWORK + code) for code in ("", DATAGRAM, "print(end='')")
        ]
        told["taken back"] = [clean == used, used == last]
        box = await make("small")
        told["writes"] = [await tell(box, WRITE)]
        await box.run_code("import os; os.remove('/tmp/x')", RunOptions())
        await box.set_limits(replace(box.spec.limits, disk_mb=1))
        told["writes"].append(await tell(box, WRITE))
        await box.destroy()
        told["left at last"] = children(template)
    finally:
        await backend.aclose()
    print(json.dumps(told))

asyncio.run(main())
"""


def live(directory: Path) -> dict[str, Any]:
    """Return what becomes of the sandboxes of the sandpool in `directory`."""
    told: dict[str, Any] = json.loads(run_with_copy(directory, LIFE))
    return told


@pytest.mark.skipif(
    not branch.is_compiled(), reason="this host lacks a C compiler: libbranch.so.1 was not made"
)
def test_a_template_does_the_same_whether_it_was_compiled_or_not(tmp_path: Path) -> None:
    copy = copy_sandpool(tmp_path)
    compiled = live(tmp_path)
    (copy / LIBRARY).unlink()
    interpreted = live(tmp_path)
    few, many = compiled.pop("faults"), interpreted.pop("faults")
    assert few < many / 2, "Python does not run in a compiled template"
    assert compiled == interpreted
    assert compiled == {
        "made": 70,
        "networks": 70,
        "ended by themselves": [[35, "SandboxDied"]],
        "left": [],
        "taken back": [True, False],
        "writes": [str(2 << 20), "28"],
        "left at last": [],
    }
