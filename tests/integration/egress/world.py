"""A host of its own, with a world around it that remembers who came by.

Run as a program, in new network and mount namespaces (and a user namespace, where it is not root),
this process is in the host's network; another namespace is the world:

    host 192.0.2.10, 203.0.113.77 ---- 192.0.2.1 world, with every address of `WORLD`

Everything in the world, and the host itself, answers on `PORTS`, by TCP and UDP.  The host's
resolver is the world's, at `RESOLVER`, and knows `NAMES`.  Then a driver, a program with sandboxes,
is run on that host.  What it prints, and what was seen, goes to standard output as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rrset

from sandpool.backends.native import cgroups
from sandpool.backends.native.egress.namespaces import within
from sandpool.backends.native.egress.netlink import RouteSocket
from sandpool.backends.native.egress.nft import Tables
from tests.leaks import census

HOST = "192.0.2.10"
HOST_TOO = "203.0.113.77"
"""An address of the host within a network that policies allow."""
HOST_LATER = "203.0.113.88"
"""One that the host gets when the driver asks for it."""
GATEWAY = "192.0.2.1"
LISTED = "203.0.113.5"
ALSO_LISTED = "203.0.113.6"
OTHER = "198.51.100.9"
PRIVATE = "10.20.30.40"
NEIGHBOUR = "192.168.7.7"
METADATA = "169.254.169.254"
RESOLVER = "198.51.100.53"
WORLD = (GATEWAY, LISTED, ALSO_LISTED, OTHER, PRIVATE, NEIGHBOUR, METADATA, RESOLVER, HOST_LATER)
_OWN_NETWORK = "/proc/thread-self/ns/net"
PORTS = (80, 443, 8080)
NAMES = {
    "pypi.test": LISTED,
    "files.pypi.test": ALSO_LISTED,
    "other.test": OTHER,
    "private.pypi.test": PRIVATE,
    "metadata.pypi.test": METADATA,
    "host.pypi.test": HOST,
    "host-too.pypi.test": HOST_TOO,
    "loopback.pypi.test": "127.0.0.1",
}


@dataclass
class Seen:
    """Who came by."""

    visits: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Protocol, address and port that somebody reached."""
    questions: list[str] = field(default_factory=list[str])
    """Names that the world's resolver was asked for."""


def serve_tcp(seen: Seen, listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            with client:
                address, port = client.getsockname()
                seen.visits.append(("tcp", address, port))
                client.settimeout(5)
                with suppress(OSError):
                    client.recv(64)
                    client.sendall(address.encode())


def serve_udp(seen: Seen, listening: socket.socket) -> None:
    address, port = listening.getsockname()
    with suppress(OSError):
        while True:
            _, sender = listening.recvfrom(512)
            seen.visits.append(("udp", address, port))
            listening.sendto(address.encode(), sender)


def serve_dns(seen: Seen, listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            packet, sender = listening.recvfrom(4096)
            query = dns.message.from_wire(packet)
            name = query.question[0].name.to_text().rstrip(".")
            seen.questions.append(name)
            answer = dns.message.make_response(query)
            address = NAMES.get(name)
            if address is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "A", address))
            listening.sendto(answer.to_wire(), sender)


def listen(seen: Seen, addresses: tuple[str, ...]) -> None:
    """Answer on every port of these addresses of this thread's network."""

    def start(
        kind: socket.SocketKind, address: str, port: int, serve: Callable[[Seen, Any], None]
    ) -> None:
        listening = socket.socket(socket.AF_INET, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: some addresses come later
        listening.bind((address, port))
        if kind == socket.SOCK_STREAM:
            listening.listen(64)
        threading.Thread(target=serve, args=(seen, listening), daemon=True).start()

    for address in addresses:
        for port in PORTS:
            start(socket.SOCK_STREAM, address, port, serve_tcp)
            start(socket.SOCK_DGRAM, address, port, serve_udp)
        if address == RESOLVER:
            start(socket.SOCK_DGRAM, address, 53, serve_dns)
        else:
            start(socket.SOCK_DGRAM, address, 53, serve_udp)


def populate(seen: Seen) -> None:
    """Be the world, in a thread of its network."""
    with closing(RouteSocket()) as world:
        world.set_up(world.index("lo"))
        index = world.index("world0")
        for address in WORLD:
            world.add_address(index, IPv4Address(address), 24 if address == GATEWAY else 32)
        world.set_up(index)
    listen(seen, WORLD)


def build(seen: Seen) -> None:
    """Make the world and connect this host to it."""
    with closing(RouteSocket()) as host:
        loopback = host.index("lo")
        host.set_up(loopback)
        namespaces: list[int] = []
        within(None, lambda: namespaces.append(os.open(_OWN_NETWORK, os.O_RDONLY)))
        host.add_veth("eth0", "world0", namespaces[0])
        within(namespaces[0], lambda: populate(seen))
        index = host.index("eth0")
        host.add_address(index, IPv4Address(HOST), 24)
        host.add_address(index, IPv4Address(HOST_TOO), 32)
        host.set_up(index)
        host.add_route(index, None, IPv4Address(GATEWAY))
    listen(seen, (HOST, HOST_TOO, HOST_LATER))


def add_host_address() -> None:
    with closing(RouteSocket()) as host:
        host.add_address(host.index("eth0"), IPv4Address(HOST_LATER), 32)


def left() -> dict[str, list[str]]:
    """Return what there is on this host that a program with sandboxes may have made."""
    with closing(Tables()) as tables:
        listed = tables.run("list tables").split("\n")
    links = [
        line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().split("\n")[2:]
    ]
    return {
        "tables": [line for line in listed if line],
        "links": sorted(name for name in links if name and name not in ("lo", "eth0")),
        "processes": sorted(map(str, census.descendants(os.getpid()))),
    }


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def is_clean() -> bool:
    reap()
    return not any(left().values())


def sweep() -> None:
    """Remove the control groups that nobody was left to remove, as whoever comes next would."""
    groups = cgroups.Cgroups(cgroups.find())
    groups.open()
    groups.close()


def drive(request: dict[str, Any]) -> tuple[str, str, int]:
    """Run the driver to its end, or until it wants to be killed; do what it asks for meanwhile."""
    command = [sys.executable, "-c", request["driver"], json.dumps(request["facts"])]
    if request["is_user"]:
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert program.stdin is not None
        assert program.stdout is not None
        printed = ""
        for line in program.stdout:
            if line == "add an address\n":
                add_host_address()
                program.stdin.write("done\n")
                program.stdin.flush()
            elif line == "kill me\n":
                program.send_signal(signal.SIGKILL)
                break
            elif line == "kill us all\n":
                for pid in census.descendants(os.getpid()):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                break
            else:
                printed += line
        program.stdin.close()
        program.stdout.close()
        code = program.wait()
        errors.seek(0)
        return printed, errors.read(), code


def main() -> None:
    request = json.load(sys.stdin)
    # Orphans of the driver's come to us (PR_SET_CHILD_SUBREAPER), so that the census finds them.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    seen = Seen()
    build(seen)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if request["forwards"] else "0")
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(f"nameserver {RESOLVER}\n")
        file.flush()
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        printed, errors, code = drive(request)
        census.until(is_clean, 5)
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)
    reap()
    sweep()
    answer = {
        "printed": printed,
        "errors": errors,
        "code": code,
        "visits": seen.visits,
        "questions": seen.questions,
        "left": left(),
    }
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
