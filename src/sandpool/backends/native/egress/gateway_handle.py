"""The host's handle on the process that holds the gates: start it, open, plug, and end it.

Like a template's handle it belongs to no event loop and moves to the one that runs.

    E1  A box is in `_boxes` from before it is plugged until its template has said that it has
        exited; a gate with such a box is not closed.
    E2  After `_gone` is set nothing is sent, no gate is open, and `on_lost` has been called.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from sandpool.backends import callbacks
from sandpool.backends.inheritance import keep_from_forks
from sandpool.backends.native.egress import nft
from sandpool.backends.native.egress.rules import Opening
from sandpool.errors import BackendUnavailable, CreateFailed
from sandpool.models import Network

_MAX_PACKET = 256 * 1024
_RIGHTS = socket.CMSG_SPACE(4)
_START_TIMEOUT = 20.0
_TIMEOUT = 20.0
_END_GRACE = 5.0
_IDLE_GATES = 8
"""Gates without a sandbox that stay open for the next one of their policy."""


def openings(network: Network) -> list[Opening]:
    """Return what a policy opens, as a gate understands it."""
    return [
        Opening(
            destination.network,
            "" if destination.network is not None else destination.host,
            destination.port_ranges,
            ("tcp", "udp") if destination.protocol == "any" else (destination.protocol,),
        )
        for destination in network.allow
    ]


def _unavailable(why: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"sandboxes cannot have a network here: {why}; `sandpool doctor` says what this host can do"
    )


class GatewayHandle:
    """One running gateway."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        on_lost: Callable[[str], None],
    ) -> None:
        """Make it; `start` does."""
        self._process = process
        self._control = control
        self._fd = control.fileno()
        keep_from_forks(control)
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone: str | None = None
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._gates: dict[Network, int] = {}
        """Open, or about to be; the least recently used first."""
        self._opening: dict[Network, asyncio.Future[None]] = {}
        self._boxes: dict[str, int] = {}  # Invariant E1
        self.uplink = ""
        """What connects its gates to the host's network."""
        self.user_namespace: int | None = None
        """Open on the one that its templates have to begin below; None: they need not."""

    @classmethod
    async def start(
        cls, *, privileged: bool, table: str, on_lost: Callable[[str], None]
    ) -> GatewayHandle:
        """Start the process, whose tables on the host have names that begin with `table`.

        Raises `BackendUnavailable`, naming what this host lacks; nothing is left behind then.
        `on_lost` is called once when it ends other than by `aclose`.
        """
        missing = nft.missing()
        if missing is not None:
            raise _unavailable(f"{missing}: apt-get install nftables")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 (a vfork, and our own program)
                [sys.executable, "-P", "-m", f"{__package__}.gateway", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": _python_path()},
                start_new_session=True,
            )
        ours.setblocking(False)
        handle = cls(process, ours, on_lost)
        try:
            ours.send(json.dumps({"privileged": privileged, "table": table}).encode())
            with anyio.fail_after(_START_TIMEOUT):
                await anyio.wait_readable(ours)
            handle._greet()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await handle.aclose()
            if isinstance(error, TimeoutError):
                raise _unavailable(
                    f"the gateway did not start within {_START_TIMEOUT:.0f} s"
                ) from error
            raise
        handle._attach()
        return handle

    def _greet(self) -> None:
        packet, ancillary, _, _ = self._control.recvmsg(
            _MAX_PACKET, _RIGHTS, socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        self.user_namespace = fds[0] if fds else None
        if not packet:
            raise _unavailable("the gateway ended while it started")
        hello = json.loads(packet)
        if hello["event"] != "ready":
            raise _unavailable(hello["error"])
        self.uplink = hello["uplink"]

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, or is ending."""
        return self._gone is not None

    async def open(self, network: Network) -> None:
        """Make sure that there is a gate for this policy; `BackendUnavailable`."""
        while network in self._opening and self._opening[network].get_loop() is _loop():
            await asyncio.wait([self._opening[network]])
        if network in self._gates:
            self._gates[network] = self._gates.pop(network)
            return
        self._close_idle()
        done = self._opening[network] = _loop().create_future()
        number = self._next_number()
        plain = [opening.as_plain() for opening in openings(network)]
        try:
            await self._ask("open", gate=number, number=number, openings=plain)
            self._gates[network] = number
        except CreateFailed as error:
            raise _unavailable(str(error)) from error
        finally:
            del self._opening[network]
            done.set_result(None)

    async def plug(self, network: Network, box_id: str, namespace: int) -> None:
        """Connect a box, whose network namespace is open there, to the gate of its policy.

        Raises `BackendUnavailable` or `CreateFailed`; it is then not connected, or `unplug` sees to
        that.
        """
        await self.open(network)
        self._boxes[box_id] = gate = self._gates[network]
        await self._ask("plug", namespace, gate=gate, box=box_id)

    def unplug(self, box_id: str) -> None:
        """Free the cable of a box that has exited; harmless for one that has none."""
        gate = self._boxes.pop(box_id, None)
        if gate is not None:
            self._tell("unplug", gate=gate, box=box_id)

    def _close_idle(self) -> None:
        used = Counter(self._boxes.values())
        idle = [network for network, number in self._gates.items() if not used[number]]
        for network in idle[: max(0, len(idle) - _IDLE_GATES + 1)]:
            self._tell("close", gate=self._gates.pop(network))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _ask(self, op: str, namespace: int | None = None, **fields: Any) -> None:
        """Send a request and wait until it is done; `CreateFailed`."""
        self._attach()
        number: int = fields.setdefault("number", self._next_number())
        answer = self._answers[number] = _loop().create_future()
        try:
            self._send({"op": op, **fields}, namespace)
            async with asyncio.timeout(_TIMEOUT):
                await answer
        except TimeoutError:
            raise CreateFailed("the gateway does not answer") from None
        finally:
            self._answers.pop(number, None)

    def _tell(self, op: str, **fields: Any) -> None:
        """Send a request that nobody waits for; what is gone needs none."""
        if self._gone is None:
            try:
                self._send({"op": op, "number": self._next_number(), **fields}, None)
            except CreateFailed as error:
                self._lose(str(error))

    def _send(self, request: dict[str, Any], namespace: int | None) -> None:
        if self._gone is not None:
            raise CreateFailed(f"the gateway is gone: {self._gone}")
        rights: list[tuple[int, int, array.array[int]]] = []
        if namespace is not None:
            rights.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [namespace])))
        try:
            self._control.sendmsg([json.dumps(request).encode()], rights)
        except BlockingIOError:
            raise CreateFailed("the gateway is not keeping up with requests") from None
        except OSError as error:
            self._lose(str(error))
            raise CreateFailed(f"the gateway is gone: {error}") from error

    def _attach(self) -> None:
        loop = _loop()
        if loop is self._loop or self._gone is not None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._loop = loop
        callbacks.add_reader(loop, self._fd, self._readable)

    def _readable(self) -> None:
        while self._gone is None:
            try:
                packet = self._control.recv(_MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(str(error))
                return
            if not packet:
                self._lose("it ended")
                return
            event = json.loads(packet)
            if event["event"] == "failed":
                self._lose(event["error"])
                return
            answer = self._answers.get(event["number"])
            if answer is not None and not answer.done():
                if event["error"] is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(CreateFailed(event["error"]))

    def _lose(self, cause: str) -> None:
        if self._gone is not None:
            return
        self._gone = cause
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._control.close()
        if self.user_namespace is not None:
            os.close(self.user_namespace)
            self.user_namespace = None
        self._gates.clear()
        self._boxes.clear()
        for answer in self._answers.values():
            if not answer.done() and not answer.get_loop().is_closed():
                answer.set_exception(CreateFailed(f"the gateway is gone: {cause}"))
        if cause != _CLOSED:
            self._on_lost(cause)

    async def aclose(self) -> None:
        """End the process, and with it every gate; return when it is gone or has been killed."""
        self._lose(_CLOSED)
        await anyio.to_thread.run_sync(self._wait_process)

    def _wait_process(self) -> None:
        try:
            self._process.wait(_END_GRACE)
        except subprocess.TimeoutExpired:
            # Process 1 of its pid namespace, which holds everything, dies with it.
            self._process.kill()
            self._process.wait()


_CLOSED = "closed"


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _python_path() -> str:
    """Return where this program's modules are, for one that is to find the same."""
    return os.pathsep.join(entry for entry in sys.path if entry)
