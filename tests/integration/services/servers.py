"""Small servers for real sandboxes, and how to call and hurt them."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from sandpool import PoolSpec
from tests.leaks import census

PORT = 8080

_QUICK = f"""
import socket

listener = socket.create_server(("127.0.0.1", {PORT}), backlog=64)
while True:
    connection, _ = listener.accept()
    try:
        connection.recv(65_536)
        try:
            body = open("tenant", "rb").read()
        except OSError:
            body = b"nobody"
        connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + body)
    except OSError:
        pass
    connection.close()
"""
QUICK = ("python3", "-I", "-S", "-c", _QUICK)
"""A server that is up in milliseconds, and tells what its tenant has written down."""


def quick(**changes: Any) -> PoolSpec:
    """Return the definition of a pool of quick servers that are looked at when they are claimed."""
    fields: dict[str, Any] = {
        "name": "web",
        "entrypoint": QUICK,
        "ports": (PORT,),
        "health_check": {"kind": "http", "timeout": 5, "start_timeout": 30, "interval": 0.05},
        "maintain_every": 1_000,
        "memory_mb": 64,
        "warm": 3,
        "max": 8,
    }
    return PoolSpec.model_validate({**fields, **changes})


async def get(url: str) -> str:
    """Return what a server answers."""
    # Without certificates, which take longer to load than all the rest.
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=no_tls) as client:
        answer = await client.get(url)
    return answer.raise_for_status().text


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what no event announces."""
    for _ in range(4_000):
        if await condition():
            return
        await anyio.sleep(0.02)
    pytest.fail("what was waited for did not come about")


def server_pids() -> list[int]:
    """Return the processes, as this machine counts them, of the servers in all our sandboxes."""
    found: list[int] = []
    for pid in census.descendants(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"listener = socket" in words:
            found.append(pid)
    return sorted(found)


def hurt(pid: int, how: signal.Signals) -> None:
    """Send a signal to a server, as something inside its sandbox could."""
    os.kill(pid, how)
