"""A terminal with a command of sandpool's on it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios


class Terminal:
    """A terminal with a command of sandpool's on it."""

    def __init__(self, url: str, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        termios.tcsetwinsize(self.master, (31, 97))
        self.program = subprocess.Popen(
            [sys.executable, "-m", "sandpool", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "SANDPOOL_URL": url},
            start_new_session=True,
            # Where the tests run in the background, interrupts are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str) -> None:
        """Read until the terminal has shown a text since the last time."""
        while text.encode() not in self.seen:
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen.partition(text.encode())[2]

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.master)
        os.close(self.slave)
