"""The attempts prove something: with a mechanism taken away, what it stops gets through.

Each test runs an attempt on a copy of sandpool in which one mechanism has been switched off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandpool.backends.native import doctor
from tests.copies import copy_sandpool, run_with_copy
from tests.escape.attempts import ATTEMPTS, EPILOGUE, PRELUDE
from tests.escape.surroundings import Surroundings

pytestmark = [pytest.mark.namespaces, pytest.mark.slow, pytest.mark.root]

TEMPLATE = "backends/native/template/"


@dataclass(frozen=True)
class Edit:
    """One line of sandpool, and what is put in its place."""

    file: str
    line: str
    instead: str


NO_SECCOMP = (
    Edit(
        TEMPLATE + "kernel.py",
        "_check(_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self.address, 0, 0)",
        "_check(_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)",
    ),
    Edit(
        TEMPLATE + "jail.py",
        "        _prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, provisions.filter",
        "        _prctl(kernel.PR_SET_PDEATHSIG, 9 or provisions.filter",
    ),
)
NO_NAMESPACE_LIMIT = Edit(
    TEMPLATE + "jail.py", '        *_write_in_proc("sys/user/max_user_namespaces", "0"),\n', ""
)
HOSTS_NETWORK = Edit(
    TEMPLATE + "networks.py", '        Call("unshare", (kernel.CLONE_NEWNET,)),\n', ""
)
NO_LANDLOCK = Edit(
    TEMPLATE + "jail.py", '[Call("landlock_restrict_self", (SCOPES, 0)), Call', "[Call"
)
HOSTS_IPC = Edit(TEMPLATE + "jail.py", "                | kernel.CLONE_NEWIPC\n", "")
WRITABLE_PROC = Edit(
    TEMPLATE + "jail.py",
    "kernel.MountAttr(kernel.MOUNT_ATTR_RDONLY, 0, 0, 0)",
    "kernel.MountAttr()",
)
OPEN_PROC = Edit(TEMPLATE + "jail.py", "= _find_masks()", "= []")
KEPT_DESCRIPTORS = (
    Edit(
        TEMPLATE + "jail.py",
        '"close_range", (_FIRST_KEPT + len(slots), _LAST',
        '"close_range", (_LAST_FD, _LAST',
    ),
    Edit(TEMPLATE + "jail.py", '        Call("close_range", (orders + 1, _LAST_FD, 0)),\n', ""),
    Edit("guest/child.py", "    rights.close_from(first)\n", ""),
)
NO_RLIMITS = (
    Edit("guest/child.py", "        resource.setrlimit(limit, (most, most))\n", "        pass\n"),
    Edit(
        TEMPLATE + "jail.py",
        "    for limit, most in rlimits.items():\n",
        "    for limit, most in ():\n",
    ),
)
NO_DISK_LIMIT = Edit(TEMPLATE + "kind.py", "size={given['disk_bytes']}", "size=0")
NO_INODE_LIMIT = Edit(TEMPLATE + "kind.py", "nr_inodes={given['inodes']}", "nr_inodes=0")

WRITES_TO_PROC = "open('/proc/self/oom_score_adj', 'w').write('500'); reached = True"
OPENS_MANY = "files = [open('/dev/null') for _ in range(3000)]; reached = True"
FILLS_THE_DISK = """
with open('/tmp/large', 'wb') as file:
    for _ in range(80):
        file.write(bytes(1 << 20))
reached = True
"""
FILLS_THE_INODES = """
for number in range(70000):
    os.mknod('/tmp/%d' % number)
reached = True
"""

DRIVER = """
import asyncio, json, sys
from sandpool.backends.base import BoxSpec, Limits, RunOptions
from sandpool.backends.native import NativeBackend

async def main():
    backend = NativeBackend()
    box = await backend.create(BoxSpec(limits=Limits(disk_mb=64)), box_id="tenant")
    code, facts, program = json.load(sys.stdin)
    done = await box.run_code(code, RunOptions(argv=(facts, program), timeout=15))
    print(done.stdout or done.stderr)
    await backend.aclose()

asyncio.run(main())
"""


def program_of(name: str) -> str:
    return next(attempt.program for attempt in ATTEMPTS if attempt.name == name)


def verdict(
    directory: Path, edits: tuple[Edit, ...], program: str, surroundings: Surroundings
) -> str:
    """Return what comes of `program` in a sandpool with `edits`."""
    copy = copy_sandpool(directory)
    for edit in edits:
        path = copy / edit.file
        text = path.read_text()
        assert text.count(edit.line) == 1, f"{edit.file} has changed: {edit.line!r}"
        path.write_text(text.replace(edit.line, edit.instead))
    given = json.dumps([PRELUDE + EPILOGUE, json.dumps(surroundings.facts), program])
    answer: list[str] = json.loads(run_with_copy(directory, DRIVER, stdin=given))
    return answer[0]


@pytest.mark.parametrize(
    ("edits", "program"),
    [
        pytest.param(NO_SECCOMP, program_of("uses the key rings"), id="seccomp"),
        pytest.param(NO_SECCOMP, program_of("sets up an io_uring"), id="seccomp, io_uring"),
        pytest.param(
            (*NO_SECCOMP, NO_NAMESPACE_LIMIT),
            program_of("makes a user namespace"),
            id="seccomp and the limit of user namespaces",
        ),
        pytest.param(
            (HOSTS_NETWORK,), program_of("connects to the host's loopback"), id="network namespace"
        ),
        pytest.param(
            (HOSTS_NETWORK, NO_LANDLOCK),
            program_of("connects to an abstract socket of the host"),
            id="network namespace and landlock",
        ),
        pytest.param(
            (HOSTS_IPC,), program_of("attaches the host's shared memory"), id="ipc namespace"
        ),
        pytest.param((WRITABLE_PROC,), WRITES_TO_PROC, id="read-only /proc"),
        pytest.param((OPEN_PROC,), program_of("counts the host's interrupts"), id="masked /proc"),
        pytest.param(
            KEPT_DESCRIPTORS,
            program_of("finds a descriptor that was left open"),
            id="no inherited descriptors",
        ),
        pytest.param(NO_RLIMITS, OPENS_MANY, id="open files"),
        pytest.param((NO_DISK_LIMIT, *NO_RLIMITS), FILLS_THE_DISK, id="disk"),
        pytest.param((NO_INODE_LIMIT,), FILLS_THE_INODES, id="inodes"),
    ],
)
def test_without_its_mechanism_an_attempt_gets_through(
    tmp_path: Path, surroundings: Surroundings, edits: tuple[Edit, ...], program: str
) -> None:
    assert verdict(tmp_path / "whole", (), program, surroundings) == "stopped"
    assert verdict(tmp_path / "broken", edits, program, surroundings) == "reached"


def test_landlock_holds_without_a_network_namespace(
    tmp_path: Path, surroundings: Surroundings
) -> None:
    facts = doctor.examine().facts
    if facts["landlock"] != "scopes":
        pytest.skip(f"this host lacks landlock scopes: {facts['landlock']}")
    program = program_of("connects to an abstract socket of the host")
    assert verdict(tmp_path, (HOSTS_NETWORK,), program, surroundings) == "stopped"


def test_the_limit_of_user_namespaces_holds_without_seccomp(
    tmp_path: Path, surroundings: Surroundings
) -> None:
    program = program_of("makes a user namespace")
    assert verdict(tmp_path, NO_SECCOMP, program, surroundings) == "stopped"
