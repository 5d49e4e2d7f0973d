"""What the host puts within reach of whoever is not in a sandbox, and who touched it."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyseccomp

_CALLS = """
    acct add_key bpf clock_settime clone clone3 fanotify_init fsopen init_module io_uring_setup kcmp
    kexec_load keyctl migrate_pages name_to_handle_at open_by_handle_at open_tree perf_event_open
    personality pidfd_getfd pivot_root process_vm_readv reboot swapon syslog userfaultfd
"""
_IPC_CREAT, _IPC_RMID = 0o1000, 0


@dataclass
class Surroundings:
    """What a program gets to know of the host, as JSON, and what it must not have reached."""

    facts: dict[str, Any]
    listeners: list[socket.socket]
    file: Path
    process: subprocess.Popen[bytes]

    def touched(self) -> list[str]:
        """Return what somebody has reached."""
        found: list[str] = []
        for listener in self.listeners:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(16)
                else:
                    listener.accept()
            except BlockingIOError:
                continue
            found.append(str(listener.getsockname()))
        if self.file.read_text() != self.facts["secret"]:
            found.append("the file")
        if self.process.poll() is not None:
            found.append("the process")
        return found


@contextmanager
def surround(directory: Path) -> Iterator[Surroundings]:
    """Put it all up, and take it away."""
    secret = secrets.token_hex(8)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0escape-" + secret)
        abstract.listen()
        path = stack.enter_context(socket.socket(socket.AF_UNIX))
        path.bind(str(directory / "socket"))
        path.listen()
        listeners = [tcp, udp, abstract, path]
        for listener in listeners:
            listener.setblocking(False)
        file = directory / "secret"
        file.write_text(secret)
        file.chmod(0o666)
        named = Path("/dev/shm") / ("escape-" + secret)
        named.write_text(secret)
        stack.callback(named.unlink)
        process = subprocess.Popen(["sleep", "1000"])
        stack.callback(process.wait)
        stack.callback(process.kill)
        key = int(secret[:7], 16)
        libc = ctypes.CDLL(None)
        segment = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
        assert segment >= 0
        stack.callback(libc.shmctl, segment, _IPC_RMID, None)
        facts = {
            "file": str(file),
            "secret": secret,
            "mark": directory.name,
            "port": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": "escape-" + secret,
            "socket": str(directory / "socket"),
            "pid": process.pid,
            "shm_key": key,
            "shm_name": named.name,
            "calls": {name: _number(name) for name in _CALLS.split()},
        }
        os.environ["ESCAPE_SECRET"] = secret
        stack.callback(os.environ.pop, "ESCAPE_SECRET")
        yield Surroundings(facts, listeners, file, process)


def _number(name: str) -> int:
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
