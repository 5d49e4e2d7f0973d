"""One gate: the namespace behind which the sandboxes of one policy are, and its way out.

    opened: namespace -> loopback, resolver's address -> rules -> uplink -> resolver answers
    plugged: a cable from the gate to a sandbox's namespace; until then that has only its loopback

The rules stand before the first cable or uplink does.  Everything in the namespace ends with the
last of this process's descriptors in it; the uplink's program with this process (`gateway`).
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from sandpool.backends.native.egress import rules, uplink
from sandpool.backends.native.egress.namespaces import within
from sandpool.backends.native.egress.netlink import ROUTE_CHANGES, RouteSocket
from sandpool.backends.native.egress.nft import Tables
from sandpool.backends.native.egress.resolver import Resolver
from sandpool.errors import NoCapacity

_FIRST_SANDBOX = IPv4Address("198.18.128.0")
_SANDBOXES = 32_767
_FIRST_PAIR = IPv4Address("198.19.4.0")
"""Above what an uplink that is a program uses, which the host does not see."""
_PAIRS = 16_000
_DEVICE = "sandpool"
_INSIDE = "eth0"
_UPLINK_TIMEOUT = 10.0
_SETTINGS = {
    "ip_forward": "1",
    # What is refused is refused at once, however often: only sandboxes are told.
    "icmp_ratelimit": "0",
}
"""Of the gate's own network namespace."""


@dataclass(frozen=True, slots=True)
class Host:
    """The host's network, as the process that began in it holds it."""

    links: RouteSocket
    choice: uplink.Choice
    table: str
    """What the names of our tables there begin with."""


@dataclass(frozen=True, slots=True)
class _Inside:
    """What is open in a gate's namespace, and so keeps it."""

    namespace: int
    links: RouteSocket
    tables: Tables
    datagrams: socket.socket
    connections: socket.socket


class Gate:
    """One gate."""

    def __init__(self, openings: Sequence[rules.Opening], host: Host) -> None:
        """Make it; `open` comes next."""
        self._openings = openings
        self._host = host
        self._addresses: set[IPv4Address] = set()
        """The host's own, as of the last look."""
        self._unused = deque(range(1, _SANDBOXES))
        """Numbers of cables; each is used again only when all others have been, so that no answer
        for one sandbox comes late to another."""
        self._cables: dict[str, int] = {}
        self._resolver = Resolver(openings, host=lambda: self._addresses, learn=self._learn)
        self._inside: _Inside | None = None
        self.program: subprocess.Popen[bytes] | None = None
        """The uplink, where it is a program."""
        self._made = ExitStack()
        """How to take away what there is of it."""

    def open(self) -> None:
        """Make everything but the resolver's answers; blocks.  Raises OSError or `NoCapacity`.

        What there is after an error is for `close` to take away.
        """
        self._addresses = self._host.links.local_addresses()
        within(None, self._enter)
        if self._host.choice.kind == "veth":
            self._connect_host()
        else:
            self._start_program()

    def _enter(self) -> None:
        """In a thread that has a new network namespace: open what belongs to that."""
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._made.callback(os.close, namespace)
        links = self._made.enter_context(closing(RouteSocket()))
        tables = self._made.enter_context(closing(Tables()))
        tables.run(rules.gate_ruleset(self._openings, self._addresses))
        for name, value in _SETTINGS.items():
            Path("/proc/sys/net/ipv4", name).write_text(value)
        loopback = links.index("lo")
        links.set_up(loopback)
        links.add_address(loopback, rules.RESOLVER, 32)
        datagrams, connections = (
            self._made.enter_context(socket.socket(socket.AF_INET, kind))
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
        for listening in (datagrams, connections):
            listening.setblocking(False)
            listening.bind((str(rules.RESOLVER), 53))
        connections.listen()
        self._inside = _Inside(namespace, links, tables, datagrams, connections)

    @property
    def _opened(self) -> _Inside:
        assert self._inside is not None
        return self._inside

    def _connect_host(self) -> None:
        """Be connected to the host by a veth, behind a table of its own there."""
        inside, links = self._opened, self._host.links
        number, lock = _lock_pair()
        self._made.enter_context(lock)
        outer, inner = (_FIRST_PAIR + 4 * number + side for side in (1, 2))
        device = f"{_DEVICE}{number}"
        # One that a killed program has left goes with its namespace, in a moment or now.
        links.remove(device)
        tables = self._made.enter_context(closing(Tables()))
        table = f"{self._host.table}-{number}"
        tables.run(rules.host_ruleset(table, device, inner, self._openings))
        links.add_veth(device, rules.UPLINK, inside.namespace)
        self._made.callback(links.remove, device)
        index = links.index(device)
        links.add_address(index, outer, 30)
        links.set_up(index)
        Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding").write_text("1")
        index = inside.links.index(rules.UPLINK)
        inside.links.add_address(index, inner, 30)
        inside.links.set_up(index)
        inside.links.add_route(index, None, outer)

    def _start_program(self) -> None:
        """Start pasta or slirp4netns, and wait until the gate has its default route."""
        inside = self._opened
        news: list[RouteSocket] = []
        within(inside.namespace, lambda: news.append(RouteSocket(ROUTE_CHANGES)))
        with closing(news[0]), ExitStack() as stack:
            words, errors = os.pipe()
            stack.callback(os.close, words)
            # It may say more than anybody reads, and must not wait for that.
            os.set_blocking(errors, False)
            try:
                self.program = subprocess.Popen(  # noqa: S603 (a program that `uplink` has found)
                    uplink.command(self._host.choice),
                    stdin=inside.namespace,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd="/",
                )
            finally:
                os.close(errors)
            self._made.callback(_end, self.program)
            _wait_for_route(self.program, news[0], inside.links, words)
            # Somebody has to hold the other end, or speaking would end it.
            self._made.push(stack.pop_all())

    async def serve(self) -> None:
        """Answer the questions of its sandboxes."""
        await self._resolver.serve(self._opened.datagrams, self._opened.connections)

    def plug(self, box: str, network: int) -> None:
        """Connect the network namespace open at that descriptor; blocks.

        Raises OSError, and `NoCapacity` when the gate has no cable left; then it is not connected.
        """
        if not self._unused:
            raise NoCapacity("the gate has no cable left", retry_after=1.0)
        links = self._opened.links
        number = self._unused.popleft()
        self._cables[box] = number
        name, address = f"{rules.CABLE}{number}", _FIRST_SANDBOX + number
        try:
            links.add_veth(name, _INSIDE, network)
            index = links.index(name)
            links.set_up(index)
            links.add_route(index, address)
            within(network, lambda: _configure(address))
        except OSError:
            self.unplug(box)
            raise

    def unplug(self, box: str) -> None:
        """Disconnect a sandbox, if it is connected."""
        number = self._cables.pop(box, None)
        if number is not None:
            self._opened.links.remove(f"{rules.CABLE}{number}")
            self._unused.append(number)

    def update_host(self) -> None:
        """Guard the addresses that the host has now."""
        addresses = self._host.links.local_addresses()
        if addresses != self._addresses:
            self._opened.tables.run(rules.host_update(addresses))
            self._addresses = addresses

    def _learn(self, number: int, addresses: Sequence[IPv4Address], seconds: int) -> None:
        self._opened.tables.run(rules.learn(number, addresses, seconds))

    def close(self) -> None:
        """Disconnect everybody, and take away all that there is of it; blocks."""
        self._resolver.close()
        self._made.close()


def _configure(address: IPv4Address) -> None:
    """In a sandbox's network namespace: give its end of the cable an address and routes."""
    with closing(RouteSocket()) as links:
        index = links.index(_INSIDE)
        links.add_address(index, address, 32)
        links.set_up(index)
        links.add_route(index, rules.RESOLVER)
        links.add_route(index, None, rules.RESOLVER)


def _lock_pair() -> tuple[int, socket.socket]:
    """Return the number of a free pair of addresses on this host, and what keeps it ours.

    An abstract Unix socket is the lock; the kernel releases it with its owner, however that ends.
    """
    for number in range(_PAIRS):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0sandpool-gate-{number}")
        except OSError:
            lock.close()
            continue
        return number, lock
    raise NoCapacity("all addresses for gates are taken", retry_after=1.0)


def _wait_for_route(
    program: subprocess.Popen[bytes], news: RouteSocket, links: RouteSocket, words: int
) -> None:
    """Return when there is a default route; OSError if the program ends first, or takes long."""
    ended = os.pidfd_open(program.pid)
    try:
        deadline = time.monotonic() + _UPLINK_TIMEOUT
        while not links.has_default_route():
            left = deadline - time.monotonic()
            ready, _, _ = select.select([news.fileno(), ended], [], [], max(left, 0))
            if not ready:
                raise TimeoutError("the gate's uplink took too long to come up")
            if ended in ready:
                raise OSError(f"the gate's uplink ended: {_last_words(program, words)}")
            news.skip_news()
    finally:
        os.close(ended)


def _last_words(program: subprocess.Popen[bytes], words: int) -> str:
    """Return why a program has ended; `words` is the pipe that it wrote to."""
    code = program.wait()
    said = os.read(words, 65_536).decode(errors="replace").splitlines()
    lines = [line.strip() for line in said if "syslog" not in line and line.strip()]
    return lines[-1] if lines else f"exit {code}"


def _end(program: subprocess.Popen[bytes]) -> None:
    program.kill()
    program.wait()
