"""Sandboxes are the same whether what forks them was compiled or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandpool.backends.native.template import branch
from tests.copies import copy_sandpool, run_with_copy

pytestmark = pytest.mark.namespaces

LIBRARY = "backends/native/template/libbranch.so.1"

INSIDE = """
import json, os, resource
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
names = ('Uid', 'Gid', 'Groups', 'NoNewPrivs', 'Seccomp', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd')
mounts = [line.split()[4:6] for line in open('/proc/self/mountinfo')]
print(json.dumps({
    'status': {name: status[name].split() for name in names},
    'session': os.getsid(0) == os.getpid(),
    'directory': os.getcwd(),
    'descriptors': sorted(os.listdir('/proc/self/fd'))[:3],
    'limits': [resource.getrlimit(n) for n in range(16) if n != resource.RLIMIT_RTTIME],
    'tagged': resource.getrlimit(resource.RLIMIT_RTTIME)[1] != resource.RLIM_INFINITY,
    'dumpable': os.stat('/proc/self/environ').st_uid == os.getuid(),
    'mounts': mounts,
    'modes': [oct(os.stat(path).st_mode) for path in ('/tmp', '/run', '/run/sandpool', '.')],
    'environment': sorted(os.environ),
}))
"""

DRIVER = """
import asyncio, json, sys
from sandpool import LocalSandboxManager, PoolSpec
from sandpool.backends.native import doctor

async def main():
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name='python', image='host', warm=1, memory_mb=128))
        found = []
        for _ in range(2):
            async with manager.lease('python') as sandbox:
                for _ in range(2):  # by the spare, and by a fork
                    done = await sandbox.run_code(sys.argv[1])
                    found.append(json.loads(done.stdout))
        print(json.dumps([doctor.examine().facts['forks'], found]))

asyncio.run(main())
"""


def look(directory: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return how the sandpool in `directory` forks, and what its sandboxes find of themselves."""
    how, found = json.loads(run_with_copy(directory, DRIVER, INSIDE))
    return how, found


@pytest.mark.skipif(
    not branch.is_compiled(), reason="this host lacks a C compiler: libbranch.so.1 was not made"
)
def test_a_sandbox_is_the_same_whether_it_was_forked_by_compiled_code_or_by_python(
    tmp_path: Path,
) -> None:
    copy = copy_sandpool(tmp_path)
    how, compiled = look(tmp_path)
    assert how == "compiled"
    (copy / LIBRARY).unlink()
    how, interpreted = look(tmp_path)
    assert how.startswith("in Python")
    for found in (compiled, interpreted):
        assert all(one == found[0] for one in found), "spares and forks are the same"
    assert compiled == interpreted


def test_a_library_of_another_version_is_not_used(tmp_path: Path) -> None:
    copy = copy_sandpool(tmp_path)
    (copy / LIBRARY).write_bytes(b"\x7fELF and nothing that any loader knows")
    how, found = look(tmp_path)
    assert how.startswith("in Python")
    assert found[0]["tagged"]
