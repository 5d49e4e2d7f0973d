"""The host's handle on one template process: start it, ask it for sandboxes, end it.

Like the guest's connection it belongs to no event loop and moves to the one that runs.

    H1  A box is in `_boxes` from the create packet until the template says it has exited, or is
        gone.
    H2  After `_gone` is set no packet is sent, and every box of the template is known to be dead or
        dying: a template takes its sandboxes with it.
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandpool.backends import callbacks
from sandpool.backends.inheritance import keep_from_forks
from sandpool.errors import BackendUnavailable, CreateFailed, InvalidSpec

_MAX_PACKET = 128 * 1024
_REQUEST, _EVENT = struct.Struct("=4q"), struct.Struct("=3q")
_CREATE, _KILL, _RESIZE = 1, 2, 3
_CREATED, _RESIZED, _EXITED = 1, 2, 3
"""Packets, as the template's `process.py` has them."""
_CREDENTIALS = struct.Struct("3i")
_ANCILLARY_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4)
"""Room for credentials and one descriptor."""
_START_TIMEOUT = 60.0
_END_GRACE = 5.0
_MOST_KINDS = 64
"""Kinds of sandboxes that a template remembers."""


def _told_pid(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid
    raise ValueError("it did not say which process it made")


def _told_network(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", data)[0]
    return None


class Birth:
    """A box that has been asked for: its pid, once it is known, and its end."""

    def __init__(self, on_exit: Callable[[int | None], None]) -> None:
        """Call `on_exit` with the wait status (None: unknown) when no process of it is left."""
        self._on_exit = on_exit
        self._network: int | None = None
        """Open on its network namespace, if that was asked for, until it is taken or the end."""
        self.number = 0
        """Under which its template knows it; 0: it has not been asked for."""
        self.pid: int | None = None
        self.error: str | None = None
        self.has_exited = False
        self.resized: int | None = None
        """The errno that the last change of its size had, 0 for none; None: not known yet."""
        self._waiters: set[asyncio.Future[None]] = set()

    async def wait_pid(self) -> int:
        """Return the pid of the box's first process, on this host."""
        while self.pid is None:
            if self.has_exited:
                raise CreateFailed(self.error or "the sandbox ended before it had begun")
            await self._wait()
        return self.pid

    async def wait_exit(self) -> None:
        """Return when no process of the box is left."""
        while not self.has_exited:
            await self._wait()

    def started(self, pid: int, network: int | None) -> None:
        """Record the pid, and take the descriptor of its network; called by the handle."""
        self.pid = pid
        self._network = network
        self._wake()

    def take_network(self) -> int:
        """Return the descriptor of its network namespace; it is the caller's to close."""
        network, self._network = self._network, None
        if network is None:
            raise CreateFailed(self.error or "the sandbox ended before it could be connected")
        return network

    def exited(self, status: int | None, error: str | None) -> None:
        """Record the end; called by the handle, once."""
        if not self.has_exited:
            self.has_exited = True
            self.error = error
            if self._network is not None:
                os.close(self._network)
                self._network = None
            self._on_exit(status)
            self._wake()

    async def wait_resized(self) -> int:
        """Return the errno of a change of its size."""
        while self.resized is None:
            if self.has_exited:
                return errno.ESRCH
            await self._wait()
        return self.resized

    def told_resized(self, number: int) -> None:
        """Record how a change of its size went; called by the handle."""
        self.resized = number
        self._wake()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            # A waiter of a dead event loop can neither be woken nor be waiting.
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


class TemplateHandle:
    """One running template."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        """Make it; `start` does."""
        self._process = process
        self._control = control
        keep_from_forks(control)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._boxes: dict[int, Birth] = {}  # Invariant H1
        self._last_number = 0
        self._kinds: dict[str, int] = {}
        """The kinds that the template has been told of."""
        self._gone: str | None = None  # Invariant H2
        self.python: str | None = None
        """The version of its interpreter; None where the image has no Python."""

    @classmethod
    async def start(cls, config: dict[str, Any], library: Path) -> TemplateHandle:
        """Start a template and wait until it has imported what it is to share.

        Raises `InvalidSpec` when a preload cannot be imported and `BackendUnavailable` when this
        host does not let us build the root; nothing is left behind then, nor on cancellation.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            boot = library / "backends" / "native" / "template" / "boot.py"
            process = subprocess.Popen(  # noqa: ASYNC220, S603 (a vfork, and our own program)
                [sys.executable, "-I", "-B", str(boot), str(theirs.fileno())],
                pass_fds=[
                    fd for fd in (theirs.fileno(), config["user_namespace"]) if fd is not None
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=config["template_env"],
                start_new_session=True,
            )
        ours.setblocking(False)
        # A template lives in a pid namespace of its own; the kernel translates the pids it tells.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        handle = cls(process, ours)
        try:
            ours.send(json.dumps(config).encode())
            with anyio.fail_after(_START_TIMEOUT):
                await anyio.wait_readable(ours)
            handle._greet(ours.recv(_MAX_PACKET))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await handle.aclose()
            if isinstance(error, TimeoutError):
                raise BackendUnavailable(
                    f"the template did not start within {_START_TIMEOUT:.0f} s"
                ) from error
            raise
        handle.attach()
        return handle

    def _greet(self, packet: bytes) -> None:
        if not packet:
            raise BackendUnavailable("the template process ended while it started")
        hello = json.loads(packet)
        if hello["event"] == "ready":
            self.python = hello["python"]
            return
        text, kind = hello["error"], hello["kind"]
        if kind == "preload":
            raise InvalidSpec(f"the preload list cannot be imported in this image: {text}")
        raise BackendUnavailable(
            f"this host does not let us build a sandbox's root ({text}); "
            "run `sandpool doctor` to see what is missing, or use the Docker backend"
        )

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, or is ending."""
        return self._gone is not None

    def has_been_reaped(self) -> bool:
        """Whether the process has ended and left no zombie; reaps it if it can be."""
        return self._process.poll() is not None

    def attach(self) -> None:
        """Listen on the running event loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop or self._gone is not None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._control.fileno())
        self._loop = loop
        callbacks.add_reader(loop, self._control.fileno(), self._readable)

    def create(self, kind: str, first_id: int | None, guest: socket.socket, birth: Birth) -> None:
        """Ask for a sandbox whose guest gets `guest`; `birth` learns how it goes.

        `kind` is the JSON of what the sandbox has in common with others; `first_id` the first of
        its ids on this host, if it has such.
        """
        self.attach()
        if self._gone is not None:
            raise CreateFailed(f"the template is gone: {self._gone}")
        rights = array.array("i", [guest.fileno()])
        number = self._last_number + 1
        base = -1 if first_id is None else first_id
        try:
            packet = _REQUEST.pack(_CREATE, number, self._number(kind), base)
            self._control.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except BlockingIOError:
            raise CreateFailed("the template is not keeping up with requests") from None
        except OSError as error:
            self._lose(str(error))
            raise CreateFailed(f"the template is gone: {error}") from error
        self._last_number = birth.number = number
        self._boxes[number] = birth

    def _number(self, kind: str) -> int:
        """Return the number under which the template knows a kind; raises OSError."""
        number = self._kinds.get(kind)
        if number is None:
            if len(self._kinds) >= _MOST_KINDS:
                # What has been asked for keeps its kind: the template reads in this order.
                self._kinds.clear()
            number = len(self._kinds)
            head = json.dumps({"number": number})
            self._control.send(f"{head[:-1]}, {kind[1:]}".encode())
            self._kinds[kind] = number
        return number

    def kill(self, birth: Birth) -> None:
        """Kill a sandbox; its `Birth` says when it has ended.  Harmless for one that has."""
        if birth.number not in self._boxes or self._gone is not None:
            return
        self.attach()
        try:
            self._control.send(_REQUEST.pack(_KILL, birth.number, 0, 0))
        except BlockingIOError:
            # The guest's closed connection ends the sandbox all the same.
            return
        except OSError as error:
            self._lose(str(error))

    async def resize(self, birth: Birth, disk_bytes: int, inodes: int) -> None:
        """Change how much, and how many files, a sandbox may write.

        Raises OSError: EINVAL where it has more in it, EAGAIN where the template does not keep up,
        ESRCH where it has ended.
        """
        if birth.number not in self._boxes or self._gone is not None:
            raise ProcessLookupError(errno.ESRCH, "the sandbox has ended")
        self.attach()
        birth.resized = None
        self._control.send(_REQUEST.pack(_RESIZE, birth.number, disk_bytes, inodes))
        number = await birth.wait_resized()
        if number:
            raise OSError(number, os.strerror(number))

    def end(self, cause: str) -> None:
        """Begin to end the template and all its sandboxes, which is said to be for `cause`."""
        self._lose(cause)

    async def aclose(self) -> None:
        """End the template and all its sandboxes; return when they are gone or have been killed."""
        self._lose("closed")
        await anyio.to_thread.run_sync(self._wait_process)

    def _wait_process(self) -> None:
        try:
            self._process.wait(_END_GRACE)
        except subprocess.TimeoutExpired:
            # Its sandboxes' first processes die with it: their parent-death signal says so.
            self._process.kill()
            self._process.wait()

    def _readable(self) -> None:
        while self._gone is None:
            try:
                packet, ancillary, _, _ = self._control.recvmsg(
                    _MAX_PACKET, _ANCILLARY_SPACE, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(str(error))
                return
            if not packet:
                self._lose("it ended")
                return
            network = _told_network(ancillary)
            try:
                is_kept = self._hear(packet, ancillary, network)
            except (LookupError, TypeError, ValueError, ArithmeticError, struct.error) as error:
                # The interpreter that runs there is an image's, which may have any author.
                is_kept = False
                self._lose(f"it does not keep to the protocol ({type(error).__name__}: {error})")
            if network is not None and not is_kept:
                os.close(network)

    def _hear(
        self, packet: bytes, ancillary: list[tuple[int, int, bytes]], network: int | None
    ) -> bool:
        """Pass on what a template has said; return whether the descriptor is in use now."""
        if packet.startswith(b"{"):
            self._lose(str(json.loads(packet)["error"]))
            return False
        event, number, value = _EVENT.unpack_from(packet)
        birth = self._boxes[number]
        if event == _CREATED and birth.pid is None:
            birth.started(_told_pid(ancillary), network)
            return True
        if event == _RESIZED:
            birth.told_resized(value)
        elif event == _EXITED and value >= 0:
            del self._boxes[number]
            birth.exited(value, None)
        elif event == _EXITED:
            text = packet[_EVENT.size :].decode() or os.strerror(-value)
            del self._boxes[number]
            birth.exited(None, text)
        else:
            raise ValueError(f"event {event}")
        return False

    def _lose(self, cause: str) -> None:
        if self._gone is not None:
            return
        self._gone = cause
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        births = list(self._boxes.values())
        self._boxes.clear()
        for birth in births:
            birth.exited(None, f"the template is gone: {cause}")

    def describe(self) -> dict[str, Any]:
        """Return facts for people."""
        return {"pid": self._process.pid, "python": self.python, "sandboxes": len(self._boxes)}
