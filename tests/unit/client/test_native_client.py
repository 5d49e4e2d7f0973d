"""`SandboxClient` over real sandboxes: interrupts, and programs that end however they like."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from sandpool import SandboxClient
from sandpool.errors import FileMissing
from tests.leaks import census

pytestmark = pytest.mark.namespaces

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def client() -> Iterator[SandboxClient]:
    """A client that leaves neither a process nor a descriptor behind."""
    with SandboxClient() as client:
        # The first one of a process starts what stays until the process ends.
        client.list_pools()
    before = census.take()
    with SandboxClient() as client:
        yield client
    assert census.settle(before) == before


def test_a_port_has_an_address_until_the_sandbox_ends(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=1)
    with client.create(pool_id=pool.pool_id) as sandbox:
        url = sandbox.url(8080)
        assert sandbox.url(8080) == url
        with pytest.raises(HTTPError) as refused, urlopen(url):
            pass
        assert refused.value.code == 502
        refused.value.close()
    with pytest.raises(URLError), urlopen(url):
        pass


def test_a_client_serves_several_threads_and_cleans_up(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=2)
    outputs: list[str] = []

    def work() -> None:
        with client.create(pool_id=pool.pool_id) as sandbox:
            outputs.append(sandbox.run_code("print(6 * 7)").stdout)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == ["42\n"] * 4


def test_an_interrupted_run_leaves_nothing_running(client: SandboxClient) -> None:
    sandbox = client.create("host")
    main = threading.get_ident()

    def interrupt_once_it_runs() -> None:
        def has_begun() -> bool:
            try:
                return sandbox.read_file("begun") == b"yes"
            except FileMissing:
                return False

        if census.until(has_begun, 30):
            signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt_once_it_runs)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run("sh", ["-c", "printf yes > begun; sleep 1000 & sleep 1000"], timeout=15)
    interrupter.join()
    found = sandbox.run_code(
        "import glob\n"
        "lines = [open(path, 'rb').read() for path in glob.glob('/proc/[0-9]*/cmdline')]\n"
        "print(sum(b'sleep' in line for line in lines))"
    )
    assert found.stdout == "0\n"


PREAMBLE = """
import os, sys, threading
from sandpool import SandboxClient
from tests.leaks import census

client = SandboxClient()
pool = client.create_pool("host", warm_containers=2)
client.wait_pool_warm(pool.pool_id)
sandbox = client.create(pool_id=pool.pool_id)
print(*census.descendants(os.getpid()), flush=True)
"""

ENDS = {
    "end": ("", 0),
    "exit": ("sys.exit(3)", 3),
    "error": ("raise ZeroDivisionError", 1),
    "daemon": (
        "threading.Thread(target=sandbox.run, args=('sleep', ['1000']), daemon=True).start()",
        0,
    ),
    "exit without cleaning up": ("os._exit(4)", 4),
}


def is_running(pid: str) -> bool:
    """Whether there is such a process; a zombie is only a record that its new parent is slow."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), ENDS.values(), ids=ENDS)
def test_a_client_that_is_never_closed_ends_with_its_program(ending: str, code: int) -> None:
    program = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(ending)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert program.returncode == code, program.stderr
    pids = program.stdout.split()
    assert pids
    assert census.until(lambda: not any(map(is_running, pids)), 30)
