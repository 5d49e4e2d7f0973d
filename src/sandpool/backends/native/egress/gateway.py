"""The helper process that holds the gates of one backend.

Packets on the control socket are JSON objects; each request has a number, and most an answer.
    host -> gateway   {"op": "open" | "close", "gate", "openings"}
                      {"op": "plug" | "unplug", "gate", "box"}, for `plug` with a network namespace
    gateway -> host   {"event": "ready", "uplink", "table"}, with a user namespace if we have one
                      {"event": "done", "number", "error"}
                      {"event": "failed", "error"} and the end

Its main thread stays in the host's network, where the resolver asks and pasta connects; gates are
other namespaces, entered by threads of a moment.  As an ordinary user it is root in a user
namespace, below which the templates of its sandboxes begin, so that it may reach into theirs.

    G1  Gates, cables and programs end with this process: it is process 1 of a pid namespace, and
        what it has on the host belongs to sockets of its own.
    G2  It ends when its control socket does, when a gate has lost its uplink, and when rules cannot
        be kept as they should be: a network is as its policy says, or it is none.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import sys
from collections.abc import Coroutine, Mapping
from contextlib import closing
from typing import Any, NoReturn

from sandpool.backends.native.egress import namespaces, uplink
from sandpool.backends.native.egress.gate import Gate, Host
from sandpool.backends.native.egress.netlink import ADDRESS_CHANGES, RouteSocket
from sandpool.backends.native.egress.nft import Tables
from sandpool.backends.native.egress.rules import Opening
from sandpool.errors import NoCapacity

_MAX_PACKET = 256 * 1024
_RIGHTS = socket.CMSG_SPACE(4)


class Gateway:
    """The gates, and who asks for them."""

    def __init__(self, control: socket.socket, host: Host, changes: RouteSocket) -> None:
        """Serve `control`; `changes` is told of the host's addresses."""
        self._control = control
        self._host = host
        self._changes = changes
        self._gates: dict[int, Gate] = {}
        self._host_links = asyncio.Lock()
        """Held by who uses the host's links, which answer one at a time."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until the host goes away."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control.fileno(), self._readable)
        loop.add_reader(self._changes.fileno(), self._changed)
        await self._ended.wait()
        # The kernel takes all of it away by itself, but not before we are gone.
        async with self._host_links:
            while self._gates:
                self._gates.popitem()[1].close()

    def _readable(self) -> None:
        while not self._ended.is_set():
            try:
                packet, ancillary, _, _ = self._control.recvmsg(
                    _MAX_PACKET, _RIGHTS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                packet, ancillary = b"", []
            if not packet:
                self._ended.set()
                return
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            self._start(self._serve(json.loads(packet), fds[0] if fds else None))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A guard that cannot be brought up to date is none.  Invariant G2.
            self._send({"event": "failed", "error": str(error)})
            self._ended.set()

    async def _serve(self, request: Mapping[str, Any], network: int | None) -> None:
        error: str | None = None
        try:
            await self._do(request, network)
        except (OSError, NoCapacity) as failure:
            error = str(failure)
        finally:
            if network is not None:
                os.close(network)
        self._send({"event": "done", "number": request["number"], "error": error})

    async def _do(self, request: Mapping[str, Any], network: int | None) -> None:
        gate_number: int = request["gate"]
        if request["op"] == "open":
            await self._open(gate_number, [Opening.parse(item) for item in request["openings"]])
            return
        gate = self._gates.get(gate_number)
        if gate is None:
            raise OSError("there is no such gate")
        if request["op"] == "close":
            del self._gates[gate_number]
            async with self._host_links:
                gate.close()
        elif request["op"] == "unplug":
            gate.unplug(request["box"])
        else:
            assert network is not None
            gate.plug(request["box"], network)

    async def _open(self, number: int, openings: list[Opening]) -> None:
        gate = Gate(openings, self._host)
        async with self._host_links:
            try:
                await asyncio.to_thread(gate.open)
                await gate.serve()
            except BaseException:
                gate.close()
                raise
        self._gates[number] = gate
        if gate.program is not None:
            ended = os.pidfd_open(gate.program.pid)
            asyncio.get_running_loop().add_reader(ended, self._lost, number, ended)
        self._changed()  # the host may have got an address since the gate first looked

    def _lost(self, number: int, ended: int) -> None:
        """See an uplink end; by our doing or not."""
        asyncio.get_running_loop().remove_reader(ended)
        os.close(ended)
        if number in self._gates:
            self._send({"event": "failed", "error": "the uplink of a gate ended"})
            self._ended.set()

    def _changed(self) -> None:
        self._changes.skip_news()
        self._start(self._update())

    async def _update(self) -> None:
        async with self._host_links:
            for gate in self._gates.values():
                gate.update_host()

    def _send(self, value: Mapping[str, Any]) -> None:
        try:
            self._control.send(json.dumps(value).encode())
        except OSError:
            self._ended.set()  # nobody is there, or he has not listened for thousands of answers


def main(control: socket.socket, config: Mapping[str, Any]) -> None:
    """Become the helper process, and serve."""
    if not config["privileged"]:
        namespaces.become_root()
    _isolate(control)
    try:
        host, changes = _look(config)
    except OSError as error:
        _fail(control, str(error))
    rights: list[tuple[int, int, bytes]] = []
    user = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    if not config["privileged"]:
        rights.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [user]).tobytes()))
    ready = {"event": "ready", "uplink": host.choice.kind}
    control.sendmsg([json.dumps(ready).encode()], rights)
    os.close(user)
    asyncio.run(Gateway(control, host, changes).run())


def _look(config: Mapping[str, Any]) -> tuple[Host, RouteSocket]:
    """Open the host's network, and choose the way out; `problem` says if there is none."""
    chains: list[dict[str, Any]] = []
    if config["privileged"]:
        with closing(Tables()) as tables:
            chains = tables.chains()
    choice = uplink.choose(uplink.look(config["privileged"], chains))
    if choice.kind is None:
        raise OSError(choice.problem)
    return Host(RouteSocket(), choice, config["table"]), RouteSocket(ADDRESS_CHANGES)


def _isolate(control: socket.socket) -> None:
    """Go on as process 1 of a new pid namespace; the one that was started waits for it."""
    namespaces.unshare(namespaces.NEWPID)
    pid = os.fork()
    if pid:
        control.close()
        os._exit(os.waitpid(pid, 0)[1] and 1)
    namespaces.end_with_parent()


def _fail(control: socket.socket, error: str) -> NoReturn:
    control.send(json.dumps({"event": "failed", "error": error}).encode())
    os._exit(1)


def _begin(control: socket.socket) -> None:
    main(control, json.loads(control.recv(_MAX_PACKET)))


if __name__ == "__main__":
    _begin(socket.socket(fileno=int(sys.argv[1])))
