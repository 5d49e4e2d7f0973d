"""The template's main loop: forks sandboxes on request, reaps them, and never outlives its host.

Packets on the control socket are four numbers of 64 bits, or a JSON object.
    host -> template   {"number", ...} describes a kind of sandboxes; see `kind.Kind`
                       CREATE, number, kind, first host id or -1; with the guest's socket
                       KILL, number, 0, 0
                       RESIZE, number, bytes, inodes
    template -> host   CREATED, number, 0; with the pid, and with a network that is to be connected
                       RESIZED, number, errno
                       EXITED, number, wait status, or less than 0 where it was never forked: then
                       an errno below zero, and a text if there is more to say
A sandbox's number is the host's choice, and not 0.

The process has one thread.  It is the only parent of its sandboxes' first processes, so that a pid
it kills is always the one it means.  When the control socket ends it kills them all, reaps them and
removes its host's cgroups.  Where there is `forking.c` it serves what is plain, and leaves the rest
to us; both have the state that is in `forking.py`.

    T1  Every forked child is in `_forking` from the fork until it has been reaped.
    T2  A user namespace in `_forking` has the ids from its base on.  It serves one sandbox at a
        time, as the host hands out each range of ids.
    T3  `pid_for_children` is the template's own pid namespace except between unshare and fork.
"""

from __future__ import annotations

import ctypes
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
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple, Union

from . import branch, jail, kernel
from .branch import Brancher, Way
from .calls import Call
from .forking import KINDS, Forking, KindLayout
from .kind import Kind
from .networks import Networks
from .root import PROC

MAX_PACKET = 128 * 1024

_EXIT_GRACE = 4.0

_REQUEST, _EVENT = struct.Struct("=4q"), struct.Struct("=3q")
_CREATE, _KILL, _RESIZE = 1, 2, 3
_CREATED, _RESIZED, _EXITED = 1, 2, 3

# What every fork needs is as little as can be: each object is a page that is copied again.  So no
# enumerations.
_SIGKILL = int(signal.SIGKILL)
_SOL_SOCKET, _SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
_SCM_CREDENTIALS = int(socket.SCM_CREDENTIALS)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CREDENTIALS = struct.Struct("3i")
_FD = struct.Struct("i")


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
        self._news = kernel.listen_for(signal.SIGCHLD)
        self._forking = Forking(control.fileno(), self._news, provisions.slots)
        # Invariants T1 and T2
        self._ids = os.getuid(), os.getgid()
        self._networks = Networks(self._forking.layout.stock, provisions)
        own_pid_namespace = os.open(PROC + "/self/ns/pid", os.O_RDONLY)
        # Invariant T3: the kernel refuses a second unshare until we are back in our own namespace.
        self._brancher = Brancher(
            provisions.program([Call("unshare", (kernel.CLONE_NEWPID,))]),
            provisions.program([Call("setns", (own_pid_namespace, kernel.CLONE_NEWPID))]),
            provisions.slots,
        )
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the host goes away."""
        _set_limits()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._news, select.POLLIN)
        fork_on_request = branch.fork_on_request()
        layout = self._forking.layout
        reference = ctypes.byref(layout)
        while True:
            if fork_on_request is not None and fork_on_request(reference) == 0:
                branch.after_fork_in_child()
                self._become_first(layout.kind)
            self._turn()

    def _turn(self) -> None:
        is_short = self._networks.is_short
        events = self._poll.poll(0 if is_short else None)
        if not events and is_short:
            self._networks.make_ahead()
        for fd, _ in events:
            if fd == self._news:
                self._reap()
            else:
                self._receive()

    def _become_first(self, number: int) -> NoReturn:
        """In a sandbox of that kind, which has just been forked, be its process 1."""
        kind = self._kinds[number]
        if isinstance(kind, Exception):
            raise kind
        # Not by a return: whatever was freed on that way would be copied first.
        self._become(kind, kind.way)

    def _receive(self) -> None:
        try:
            packet, ancillary, _, _ = self._control.recvmsg(MAX_PACKET, 256, _CLOSE_ON_EXEC)
        except InterruptedError:
            return
        except OSError:
            packet, ancillary = b"", []
        if not packet:
            self._end()
        if packet.startswith(b"{"):
            self._learn(json.loads(packet))
            return
        op, number, first, second = _REQUEST.unpack(packet)
        if op == _CREATE:
            base = None if second < 0 else second
            self._create(number, first, base, _FD.unpack_from(ancillary[0][2])[0])
        elif op == _KILL:
            pid = self._forking.pid(number)
            if pid is not None:
                os.kill(pid, _SIGKILL)
        elif op == _RESIZE:
            self._resize(number, first, second)

    def _learn(self, request: Dict[str, Any]) -> None:
        number: int = request["number"]
        plain = KindLayout()
        try:
            kind = Kind(request, self._guest, self._provisions, self._brancher, self._interpreter)
            self._kinds[number] = kind
            if not kind.is_plugged:
                plain = KindLayout(ctypes.addressof(kind.way.layout), kind.uid_count)
        except Exception as error:  # noqa: BLE001 (whoever wants such a sandbox is told)
            self._kinds[number] = error
        if number < KINDS:
            self._forking.layout.kinds[number] = plain
        gc.freeze()  # no sandbox's collector looks at it

    def _create(self, number: int, kind_number: int, base: Optional[int], guest_fd: int) -> None:
        """Fork one sandbox, which does not return from here."""
        kind = self._kinds[kind_number]
        if isinstance(kind, Exception):
            self._send(_EXITED, number, -errno.EINVAL, text=f"{type(kind).__name__}: {kind}")
            os.close(guest_fd)
            return
        opened = [guest_fd]
        try:
            network_fd = self._networks.take()
            opened.append(network_fd)
            user_fd = None if base is None else self._user(base, kind.uid_count)
            self._provisions.admit(base, guest_fd, network_fd, user_fd)
            pid = self._brancher.branch(kind.way)
        except OSError as error:
            self._send(_EXITED, number, -(error.errno or errno.EIO), text=str(error))
            for fd in opened:
                os.close(fd)
            return
        if pid == 0:
            self._become_first(kind_number)
        self._forking.add(number, pid, None if kind.is_plugged else network_fd)
        os.close(guest_fd)
        if kind.is_plugged:
            # The host connects it to something: whatever comes of that, it is never taken back.
            self._send(_CREATED, number, 0, about=pid, plug=network_fd)
            os.close(network_fd)
        else:
            self._send(_CREATED, number, 0, about=pid)

    def _user(self, base: int, count: int) -> int:
        user = self._forking.user(base)
        if user is None:
            user = jail.make_user_namespace(base, count)
            self._forking.keep_user(base, user)
        return user

    def _resize(self, number: int, disk_bytes: int, inodes: int) -> None:
        pid = self._forking.pid(number)
        if pid is None:
            return  # its end has been told
        failure = 0
        try:
            jail.resize_places(pid, disk_bytes, inodes)
        except OSError as error:
            failure = error.errno or errno.EIO
        self._send(_RESIZED, number, failure)

    def _reap(self) -> None:
        try:
            os.read(self._news, 1024)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._forget(pid, status)

    def _forget(self, pid: int, status: int) -> None:
        child = self._forking.remove(pid)
        if child is not None:
            number, network_fd = child
            if network_fd is not None:
                self._networks.give_back(network_fd)
            self._send(_EXITED, number, status)

    def _send(
        self,
        event: int,
        number: int,
        value: int,
        *,
        text: str = "",
        about: Optional[int] = None,
        plug: Optional[int] = None,
    ) -> None:
        """Send an event; with it the pid `about`, which the kernel translates for the receiver.

        `plug` is a descriptor that goes along.
        """
        ancillary: List[Tuple[int, int, bytes]] = []
        if about is not None:
            credentials = _CREDENTIALS.pack(about, *self._ids)
            ancillary.append((_SOL_SOCKET, _SCM_CREDENTIALS, credentials))
        if plug is not None:
            ancillary.append((_SOL_SOCKET, _SCM_RIGHTS, _FD.pack(plug)))
        try:
            self._control.sendmsg([_EVENT.pack(event, number, value), text.encode()], ancillary)
        except OSError as error:
            # The host is gone; the end of the control socket will say so to the main loop.
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise

    def _end(self) -> NoReturn:
        """Leave nothing behind: the host is gone."""
        for pid in self._forking.pids():
            os.kill(pid, _SIGKILL)
        deadline = time.monotonic() + _EXIT_GRACE
        while self._forking.pids() and time.monotonic() < deadline:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._forking.remove(pid)
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
