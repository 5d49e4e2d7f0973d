"""After a reset nothing is left of the last tenant, wherever it could write."""

from __future__ import annotations

import json

import pytest

from sandpool import LocalSandboxManager, PoolSpec

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

SOW = """
import ctypes, os, pathlib, socket, subprocess, sys
mark = sys.argv[1]
sown = []
mounts = [line.split() for line in open("/proc/self/mountinfo")]
for place in sorted({fields[4] for fields in mounts if fields[5].startswith("rw")} | {"/"}):
    for top, _, _ in os.walk(place) if place != "/" else [("/", [], [])]:
        try:
            pathlib.Path(top, "canary").write_text(mark)
            sown.append(os.path.join(top, "canary"))
        except OSError:
            continue
subprocess.Popen(["sleep", "1000"], start_new_session=True)
libc = ctypes.CDLL(None)
assert libc.shmget(4321, 4096, 0o1666) >= 0
assert libc.msgget(4321, 0o1666) >= 0
assert libc.semget(4321, 1, 0o1666) >= 0
print(len(sown))
"""
REAP = """
import ctypes, json, os, sys
mark = sys.argv[1]
found = []
for place in {line.split()[4] for line in open("/proc/self/mountinfo")}:
    if not place.startswith(("/proc", "/usr", "/root")):
        for top, _, files in os.walk(place) if place != "/" else [("/", [], os.listdir("/"))]:
            found += [os.path.join(top, name) for name in files if name == "canary"]
processes = [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid())]
names = [open(f"/proc/{n}/comm").read().strip() for n in processes]
libc = ctypes.CDLL(None)
ipc = [libc.shmget(4321, 0, 0), libc.msgget(4321, 0), libc.semget(4321, 0, 0)]
print(json.dumps({"files": found, "asleep": names.count("sleep"), "ipc": ipc,
                  "environment": mark in repr(dict(os.environ))}))
"""


async def test_a_canary_in_every_place_is_gone_after_a_reset() -> None:
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="one", warm=1, max=1, recycle="reset"))
        async with manager.lease("one", env={"CANARY": "tweet"}) as sandbox:
            first = sandbox.id
            sown = await sandbox.exec(["python3", "-c", SOW, "tweet"])
            assert sown.ok, sown.stderr
            assert int(sown.stdout) >= 5, "or there was nothing to clean"
        # What was bound to one tenant is never cleaned: that sandbox is replaced.
        async with manager.lease("one") as sandbox:
            second = sandbox.id
            await sandbox.exec(["python3", "-c", SOW, "tweet"])
        async with manager.lease("one") as sandbox:
            assert sandbox.id == second != first
            found = await sandbox.run_code(REAP, argv=["tweet"])
            assert found.ok, found.stderr
            assert json.loads(found.stdout) == {
                "files": [],
                "asleep": 0,
                "ipc": [-1, -1, -1],
                "environment": False,
            }
