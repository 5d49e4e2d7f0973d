"""A host that cannot run native sandboxes is told so, by name; nothing runs there unisolated."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from sandpool.backends.native import doctor

WITHOUT_NAMESPACES = """
import asyncio, errno
import pyseccomp as lib
filter_ = lib.SyscallFilter(defaction=lib.ALLOW)
filter_.add_rule(lib.ERRNO(errno.EPERM), "unshare")
filter_.load()
"""
"""Takes away from this process what a distribution takes away from all."""

DOCTOR = """
from sandpool.backends.native import doctor
report = doctor.examine()
print(report.ok, *report.problems, *report.remedies, sep="\\n")
"""

MANAGER = """
from sandpool import BackendUnavailable, LocalSandboxManager, PoolSpec

async def main():
    async with LocalSandboxManager() as manager:
        try:
            await manager.create_pool(PoolSpec(name="x", warm=1))
            await manager.wait_pool_warm("x")
        except Exception as error:
            print(type(error).__name__, error)
        assert not await manager.list_sandboxes()

asyncio.run(main())
"""


def run(*parts: str) -> str:
    program = "\n".join(textwrap.dedent(part) for part in parts)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.namespaces
def test_the_doctor_names_what_is_missing_and_the_alternative() -> None:
    ok, *said = run(WITHOUT_NAMESPACES, DOCTOR).splitlines()
    assert ok == "False"
    assert any("namespaces are refused" in line for line in said)
    assert any("virtual machine" in line for line in said)


@pytest.mark.namespaces
def test_a_pool_says_why_it_has_no_sandboxes() -> None:
    said = run(WITHOUT_NAMESPACES, MANAGER)
    assert said.startswith(("BackendUnavailable", "PoolDegraded"))
    assert "namespaces are refused" in said


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    report = doctor.examine()
    assert not report.ok
    assert "Linux namespaces" in report.problems[0]
    assert "virtual machine" in report.remedies[0]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    report = doctor.examine()
    assert not report.ok
    assert any("libseccomp is missing" in problem for problem in report.problems)
    assert any("apt-get install libseccomp2" in remedy for remedy in report.remedies)
