"""A network of its own with nothing in it but our server and the real client of Tensorlake.

That client takes every host but the loopback's for its maker's cloud, and sends its key there.  So
it runs only where nothing can be sent anywhere: this program is started in a network namespace that
is new, and refuses to go on in any other.

It serves, and runs the client's programs one at a time as it is told by lines of JSON on its
standard input; each is answered with a line on its standard output.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandpool.server import ServerSettings, serving

CLIENT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
"""The interpreter that has the client."""

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1

_FAR = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses that are nobody's: whether there is a way to them says whether there is any."""


def way_out() -> str | None:
    """Return the address that something could be sent to from here; None if there is none.

    Connecting a datagram socket looks for a route and sends nothing.
    """
    for address, family in _FAR:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return address
    return None


def raise_loopback() -> None:
    """Set the loopback interface up: it is down in a network that has just been made."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def run_client(program: str, url: str) -> dict[str, Any]:
    """Run one program in the client's interpreter; nothing of our environment is in its."""
    done = subprocess.run(
        [str(CLIENT), "-I", "-W", "ignore", "-c", program, url],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_PROXY": "*"},
    )
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def kill_containers() -> dict[str, Any]:
    """Kill every process below this one, as a fault of the host might."""
    killed = 0
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return {"killed": killed}


def descendants(parent: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def settings(state_dir: str, more: dict[str, Any]) -> ServerSettings:
    """Return the server's settings."""
    fixed = {
        "port": 0,
        "images": {"python:3.11-slim": "host", "tensorlake/ubuntu-minimal": "host"},
        "secrets": {"TOKEN": "the-value-of-the-secret"},
        "state_dir": state_dir,
    }
    return ServerSettings.model_validate({**fixed, **more})


def tell(answer: dict[str, Any]) -> None:
    """Write an answer to whoever gave the order."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve(state_dir: str, more: dict[str, Any]) -> dict[str, Any] | None:
    """Serve until told to do it anew, with the settings that are returned; None: to end."""
    async with serving(settings(state_dir, more)) as url:
        while True:
            line = await anyio.to_thread.run_sync(sys.stdin.readline)
            if not line:
                return None
            wanted: dict[str, Any] = json.loads(line)
            if "restart" in wanted:
                again: dict[str, Any] = wanted["restart"]
                break
            if "kill" in wanted:
                answer = kill_containers()
            else:
                answer = await anyio.to_thread.run_sync(run_client, wanted["program"], url)
            tell(answer)
    return again


async def main() -> None:
    """Serve, and serve again, until standard input ends."""
    with tempfile.TemporaryDirectory() as state_dir:
        more: dict[str, Any] | None = {}
        while more is not None:
            more = await serve(state_dir, more)
            if more is not None:
                tell({})


if __name__ == "__main__":
    if (address := way_out()) is not None:
        sys.exit(f"there is a way from here to {address}: the client must not be run")
    raise_loopback()
    anyio.run(main)
