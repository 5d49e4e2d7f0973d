"""What is different on a terminal: `sandpool sandbox shell`, and the bar of a pool that fills."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from sandpool.client import HttpSandboxManager
from sandpool.manager.backends import BackendFactory
from sandpool.models import SandboxType
from sandpool.server import ServerSettings, serving
from tests.terminals import Terminal

pytestmark = [pytest.mark.namespaces, pytest.mark.slow]


@pytest.fixture
def url(native_backend: BackendFactory) -> Iterator[str]:
    async def make(url: str) -> None:
        async with HttpSandboxManager(base_url=url) as manager:
            await manager.create_sandbox(SandboxType.NATIVE, None, "mine")
            manager.keep_sandbox("mine")

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            serving(ServerSettings(port=0), backends={"native": native_backend})
        ) as url,
    ):
        portal.call(make, url)
        yield url


@pytest.fixture
def terminal(url: str) -> Iterator[Terminal]:
    found = Terminal(url, "sandbox", "shell", "mine")
    yield found
    found.close()


def test_keys_go_in_and_the_exit_code_comes_out(terminal: Terminal) -> None:
    terminal.until("$ ")
    terminal.type("tty; stty size\r")
    terminal.until("/dev/pts/")
    terminal.until("31 97")
    terminal.type("exit 7\r")
    assert terminal.program.wait(60) == 7
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_ctrl_c_interrupts_the_command_and_not_us(terminal: Terminal) -> None:
    terminal.until("$ ")
    terminal.type("echo run''ning; sleep 100\r")
    terminal.until("running")
    terminal.type("\x03")
    terminal.until("$ ")
    terminal.type("echo still he''re\r")
    terminal.until("still here")


def test_the_terminal_tells_its_new_size(terminal: Terminal) -> None:
    terminal.until("$ ")
    terminal.type("trap 'echo size: $(stty size)' WINCH; echo rea''dy\r")
    terminal.until("ready")
    termios.tcsetwinsize(terminal.master, (20, 40))
    terminal.program.send_signal(signal.SIGWINCH)
    # A shell looks at its traps when a line has been typed.
    while b"size: 20 40" not in terminal.seen:
        terminal.type("\r")
        terminal.seen += os.read(terminal.master, 4096)


def test_a_pool_that_fills_is_shown_with_what_it_waits_for(url: str) -> None:
    terminal = Terminal(url, "pool", "create", "full", "--warm", "2", "--wait")
    try:
        terminal.until("pool full: preparing host")
        terminal.until("full\r\n")
        assert terminal.program.wait(15) == 0
    finally:
        terminal.close()


def test_a_pool_that_cannot_be_filled_is_refused_in_one_sentence(url: str) -> None:
    terminal = Terminal(url, "pool", "create", "bad", "--image", "/no/such[/]root", "--wait")
    try:
        terminal.until("sandpool: image '/no/such[/]root' is not a directory")
        assert terminal.program.wait(15) == 1
        assert b"Traceback" not in terminal.seen
    finally:
        terminal.close()
