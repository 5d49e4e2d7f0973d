"""The template's main loop: forks sandboxes on request, reaps them, and never outlives its host.

Packets on the control socket are JSON objects.
    host -> template   {"op": "kind", "number", ...} describes sandboxes; see `kind.Kind`
                       {"op": "create", "id", "kind", "uid_base"} with the guest's socket
                       {"op": "kill", "id"}
                       {"op": "resize", "id", "disk_bytes", "inodes"}
    template -> host   {"event": "ready" | "failed" | "created" | "resized" | "exited", ...}

The process has one thread.  It is the only parent of its sandboxes' first processes, so that a pid
it kills is always the one it means.  When the control socket ends it kills them all, reaps them and
removes its host's cgroups.

    T1  Every forked child is in `_children` from the fork until it has been reaped.
    T2  A user namespace in `_users` has the ids from its key on.  It serves one sandbox at a time,
        as the host hands out each range of ids.
    T3  `pid_for_children` is the template's own pid namespace except between unshare and fork.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import time
from types import FrameType
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple, Union

from . import jail, kernel
from .branch import Brancher, Way
from .calls import Call
from .kind import Kind
from .networks import Networks
from .root import PROC

MAX_PACKET = 128 * 1024

_EXIT_GRACE = 4.0

# What every fork needs is as little as can be: each object is a page that is copied again.  So no
# enumerations, and of the module `json` only what is not Python.
_SIGKILL = int(signal.SIGKILL)
_SOL_SOCKET, _SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
_SCM_CREDENTIALS = int(socket.SCM_CREDENTIALS)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CREDENTIALS = struct.Struct("3i")
_FD = struct.Struct("i")
# A function of (text, where to begin) that returns a value and where it ends.
_parse: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_quote = json.encoder.encode_basestring_ascii


def _wake_only(_number: int, _frame: Optional[FrameType]) -> None:
    """Do nothing: a handler has to be there, so that the signal reaches the wake-up descriptor."""


class Template:
    """The state of one template process."""

    def __init__(
        self,
        control: socket.socket,
        cgroup_dirs: Sequence[Tuple[int, str]],
        provisions: jail.Provisions,
        guest: Any,
        interpreter: Any,
        become: Callable[[Kind, Way], NoReturn],
    ) -> None:
        """Serve `control`; `cgroup_dirs` are to be removed at the end: (parent, opened; name).

        `guest` is the guest's module `main`, `interpreter` what its training has returned; `become`
        is called in the first process of every sandbox.
        """
        self._control = control
        self._provisions = provisions
        self._guest = guest
        self._interpreter = interpreter
        self._become = become
        self._kinds: Dict[int, Union[Kind, Exception]] = {}
        """By number, or what is wrong with it."""
        self._cgroup_dirs = cgroup_dirs
        self._children: Dict[int, str] = {}  # pid -> box id; Invariant T1
        self._pids: Dict[str, int] = {}  # box id -> pid, in our own pid namespace
        self._unmapped: Dict[int, Tuple[int, int, int]] = {}
        # our end of a child's map socket -> (pid, first host id, how many)
        self._users: Dict[int, int] = {}  # first host id -> user namespace; Invariant T2
        self._ids = os.getuid(), os.getgid()
        self._networks = Networks()
        self._used: Dict[int, int] = {}  # pid -> the network namespace to be given back
        own_pid_namespace = os.open(PROC + "/self/ns/pid", os.O_RDONLY)
        # Invariant T3: the kernel refuses a second unshare until we are back in our own namespace.
        self._brancher = Brancher(
            provisions.program([Call("unshare", (kernel.CLONE_NEWPID,))]),
            provisions.program([Call("setns", (own_pid_namespace, kernel.CLONE_NEWPID))]),
            provisions.slots,
        )
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the host goes away."""
        _set_limits()
        signal.signal(signal.SIGCHLD, _wake_only)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        control = self._control.fileno()
        while True:
            is_short = self._networks.is_short
            events = self._poll.poll(0 if is_short else None)
            if not events and is_short:
                self._networks.make()
                continue
            for fd, _ in events:
                if fd == control:
                    self._receive()
                elif fd == self._wake_read:
                    self._reap()
                else:
                    self._map(fd)

    def _receive(self) -> None:
        try:
            packet, ancillary, _, _ = self._control.recvmsg(MAX_PACKET, 256, _CLOSE_ON_EXEC)
        except InterruptedError:
            return
        except OSError:
            packet, ancillary = b"", []
        if not packet:
            self._end()
        request: Dict[str, Any] = _parse(packet.decode(), 0)[0]
        if request["op"] == "create":
            self._create(request, _FD.unpack_from(ancillary[0][2])[0])
        elif request["op"] == "kill":
            pid = self._pids.get(request["id"])
            if pid is not None:
                os.kill(pid, _SIGKILL)
        elif request["op"] == "resize":
            self._resize(request)
        else:
            self._learn(request)

    def _learn(self, request: Dict[str, Any]) -> None:
        try:
            self._kinds[request["number"]] = Kind(
                request, self._guest, self._provisions, self._brancher, self._interpreter
            )
        except Exception as error:  # noqa: BLE001 (whoever wants such a sandbox is told)
            self._kinds[request["number"]] = error
        gc.freeze()  # no sandbox's collector looks at it

    def _create(self, request: Dict[str, Any], guest_fd: int) -> None:
        """Fork one sandbox, which does not return from here."""
        box = request["id"]
        kind = self._kinds[request["kind"]]
        if isinstance(kind, Exception):
            error = f"{type(kind).__name__}: {kind}"
            self._send("exited", box, error=error)
            os.close(guest_fd)
            return
        opened = [guest_fd]
        user_fd = map_fd = child_map_fd = None
        try:
            network_fd = self._networks.take()
            opened.append(network_fd)
            if self._provisions.privileged:
                user_fd = self._users.get(request["uid_base"])
                if user_fd is None:
                    ours, theirs = socket.socketpair()
                    map_fd, child_map_fd = ours.detach(), theirs.detach()
                    opened += map_fd, child_map_fd
            self._provisions.admit(request["uid_base"], guest_fd, network_fd, user_fd, child_map_fd)
            way = kind.new if user_fd is None else kind.ready
            pid = self._brancher.branch(way)
        except OSError as error:
            self._send("exited", box, error=str(error))
            for fd in opened:
                os.close(fd)
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            # Not by a return: whatever was freed on that way would be copied first.
            self._become(kind, way)
        self._children[pid] = box
        self._pids[box] = pid
        os.close(guest_fd)
        if map_fd is not None and child_map_fd is not None:
            os.close(child_map_fd)
            self._unmapped[map_fd] = (pid, request["uid_base"], kind.uid_count)
            self._poll.register(map_fd, select.POLLIN)
        if kind.is_plugged:
            # The host connects it to something: whatever comes of that, it is never taken back.
            self._send("created", box, about=pid, plug=network_fd)
            os.close(network_fd)
        else:
            self._used[pid] = network_fd
            self._send("created", box, about=pid)

    def _resize(self, request: Dict[str, Any]) -> None:
        pid = self._pids.get(request["id"])
        if pid is None:
            return  # its end has been told
        number = 0
        try:
            jail.resize_places(pid, request["disk_bytes"], request["inodes"])
        except OSError as error:
            number = error.errno or errno.EIO
        self._send("resized", request["id"], errno=number)

    def _map(self, fd: int) -> None:
        """Answer a child that is in its user namespace and waits for its ids."""
        pid, base, count = self._unmapped.pop(fd)
        self._poll.unregister(fd)
        try:
            # A child that died has closed its end: nothing to read, nothing to map.
            if os.read(fd, 1) == b"m":
                jail.map_ids(pid, base, count)
                self._users[base] = os.open(f"{PROC}/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
                os.write(fd, b"k")
        except OSError:
            pass  # the child sees the end of its socket and reports that it could not be mapped
        finally:
            os.close(fd)

    def _reap(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._forget(pid, status)

    def _forget(self, pid: int, status: int) -> None:
        box = self._children.pop(pid, None)
        if box is not None:
            del self._pids[box]
            network_fd = self._used.pop(pid, None)
            if network_fd is not None:
                self._networks.give_back(network_fd)
            self._send("exited", box, status=status)

    def _send(
        self,
        event: str,
        box: str,
        *,
        about: Optional[int] = None,
        plug: Optional[int] = None,
        **more: Union[int, str],
    ) -> None:
        """Send an event; with it the pid `about`, which the kernel translates for the receiver.

        `plug` is a descriptor that goes along.
        """
        told = [f'"event": {_quote(event)}, "id": {_quote(box)}']
        for name, value in more.items():
            shown = _quote(value) if isinstance(value, str) else value
            told.append(f'"{name}": {shown}')
        ancillary: List[Tuple[int, int, bytes]] = []
        if about is not None:
            credentials = _CREDENTIALS.pack(about, *self._ids)
            ancillary.append((_SOL_SOCKET, _SCM_CREDENTIALS, credentials))
        if plug is not None:
            ancillary.append((_SOL_SOCKET, _SCM_RIGHTS, _FD.pack(plug)))
        try:
            self._control.sendmsg([f"{{{', '.join(told)}}}".encode()], ancillary)
        except OSError as error:
            # The host is gone; the end of the control socket will say so to the main loop.
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise

    def _end(self) -> NoReturn:
        """Leave nothing behind: the host is gone."""
        for pid in self._children:
            os.kill(pid, _SIGKILL)
        deadline = time.monotonic() + _EXIT_GRACE
        while self._children and time.monotonic() < deadline:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._children.pop(pid, None)
            else:
                select.select([], [], [], 0.002)
        while not remove_cgroups(self._cgroup_dirs) and time.monotonic() < deadline:
            select.select([], [], [], 0.01)
        os._exit(0)


def remove_cgroups(directories: Sequence[Tuple[int, str]]) -> bool:
    """Remove each (descriptor of the parent, name) with its children; True when none is left."""
    done = True
    for parent, name in directories:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            continue
        try:
            for entry in os.listdir(fd):
                if entry.isdigit():
                    os.rmdir(entry, dir_fd=fd)
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass  # another template of the same host was faster
        except OSError:
            done = False
        finally:
            os.close(fd)
    return done


def _set_limits() -> None:
    """Open as many files as we may, two for each sandbox; and no process dumps its core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle() -> None:
    """Settle the heap that every sandbox will share."""
    gc.collect()
    gc.freeze()


def thread_count() -> int:
    """Return how many threads this process has; a template must have one."""
    return len(os.listdir(PROC + "/self/task"))
