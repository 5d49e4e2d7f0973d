"""One program started for a request, from the fork to its answer.

States:

    RUNNING ─► ENDED ─► DRAINED ─► answered            it ended by itself
    RUNNING ─► HUNTED ─► ENDED ─► DRAINED ─► answered  timeout or CANCEL: its whole tree is killed

Invariants:

    R1  The program's process id is used only until it has been reaped (`_status` is None).
    R2  The answer is sent after the last byte of output that was written before the end.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Tuple

from . import frames
from .inlet import Inlet
from .loop import monotonic
from .outlet import Outlet
from .request import Activity

if TYPE_CHECKING:
    from typing import Callable, Sequence

    from .guest import Guest
    from .request import Request
    from .spare import Taken
    from .takeover import EarlyRun

_LAST_SIGNAL = 64


Pair = Tuple[int, int]
"""The two ends of a pipe, the one to read from first."""


class Plumbing:
    """The pipes of one program: our ends, and those that its process gets."""

    __slots__ = ("_theirs", "error", "input", "output", "stderr", "stdin", "stdout")

    def __init__(self, null: int, with_stdin: bool) -> None:
        """Open them; `null` stands for the input of a program that gets none."""
        self._theirs: list[int] = []
        self.input: int | None = None
        self.output = self.error = -1
        try:
            if with_stdin:
                self.stdin, self.input = os.pipe()
                self._theirs.append(self.stdin)
                os.set_blocking(self.input, False)
            else:
                self.stdin = null
            self.output, self.stdout = self._open_output()
            self.error, self.stderr = self._open_output()
        except OSError:
            self.close()
            raise

    @classmethod
    def adopt(cls, stdin: Pair, stdout: Pair, stderr: Pair) -> Plumbing:
        """Return plumbing of pipes that are open; an end that is closed is -1."""
        self = cls.__new__(cls)
        self.stdin, self.input = stdin[0], stdin[1] if stdin[1] >= 0 else None
        self.output, self.stdout = stdout
        self.error, self.stderr = stderr
        for fd in (self.input, self.output, self.error):
            if fd is not None and fd >= 0:
                os.set_blocking(fd, False)
        self._theirs = [fd for fd in (self.stdin, self.stdout, self.stderr) if fd >= 0]
        return self

    def _open_output(self) -> tuple[int, int]:
        ours, theirs = os.pipe()
        self._theirs.append(theirs)
        os.set_blocking(ours, False)
        return ours, theirs

    def close_theirs(self) -> None:
        """Close the program's ends, which its process now has."""
        while self._theirs:
            os.close(self._theirs.pop())

    def close(self) -> None:
        """Close everything: there is no program."""
        self.close_theirs()
        for fd in (self.input, self.output, self.error):
            if fd is not None and fd >= 0:
                os.close(fd)


class Run(Activity):
    """A program, its outputs and its input."""

    __slots__ = (
        "_cleanup",
        "_duration",
        "_guest",
        "_has_timed_out",
        "_inlet",
        "_is_doomed",
        "_is_hunted",
        "_outlets",
        "_request",
        "_started",
        "_status",
        "_tag",
        "_timer",
        "_undrained",
        "pid",
    )

    def __init__(
        self,
        guest: Guest,
        request: Request,
        tag: int,
        pid: int,
        outlets: Sequence[Outlet],
        inlet: Inlet | None,
        early: EarlyRun | None = None,
    ) -> None:
        """Watch over the process `pid`, which has just been forked, or was `early`."""
        self._guest = guest
        self._request = request
        self._tag = tag
        self.pid = pid
        self._outlets = outlets
        self._inlet = inlet
        self._started = monotonic() if early is None else early.started
        self._duration = 0.0
        self._status: int | None = None  # Invariant R1
        self._is_doomed = False
        self._is_hunted = False
        self._has_timed_out = False
        self._undrained = 0
        self._timer: Any = None
        self._cleanup: Callable[[], None] | None = None
        request.activity = self
        if early is None or early.status is None:
            guest.reaper.expect(pid, self.end)
        if early is None:
            request.event_soon({"pid": pid})

    def limit(self, timeout: float | None) -> None:
        """Kill it `timeout` seconds after its start."""
        if timeout is not None:
            left = self._started + timeout - monotonic()
            self._timer = self._guest.loop.after(left, self._time_out)

    def on_finish(self, cleanup: Callable[[], None]) -> None:
        """Call `cleanup` right before the answer."""
        self._cleanup = cleanup

    def data(self, request: Request, payload: bytes) -> None:
        """Pass bytes on to the program's input."""
        if self._inlet is not None:
            self._inlet.feed(request, payload)
        else:
            request.consumed(len(payload))

    def eof(self, request: Request) -> None:
        """Close the program's input after what is still on its way."""
        if self._inlet is not None:
            self._inlet.end()

    def control(self, request: Request, value: dict[str, Any]) -> None:
        """Send a signal, or close the input."""
        number = value.get("signal")
        if isinstance(number, int) and 0 < number <= _LAST_SIGNAL:
            self._signal(number)
        elif value.get("stdin_close") is True:
            self.eof(request)

    def resume(self, request: Request) -> None:
        """Go on reading output."""
        for outlet in self._outlets:
            outlet.resume()

    def cancel(self, request: Request) -> None:
        """Kill the whole tree; the answer follows when nothing of it is left."""
        self._begin_hunt()

    def _signal(self, number: int) -> None:
        if self._status is not None:
            return  # Invariant R1
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # It has not made its session yet, and is still the only one in it.
            os.kill(self.pid, number)

    def _time_out(self) -> None:
        self._has_timed_out = True
        self._begin_hunt()

    def _begin_hunt(self) -> None:
        if not self._is_doomed:
            # First: the hunt begins with a reap, which may bring the news of our own end.
            self._is_doomed = True
            self._guest.hunt(self._tag, self._hunted)

    def _hunted(self) -> None:
        # First: an end that is learnt of here must not be answered twice.
        self._guest.reaper.reap()
        self._is_hunted = True
        if self._status is None:
            # Beyond even SIGKILL, in the kernel; it dies whenever that returns.
            self.end(signal.SIGKILL)
        else:
            self._drain()

    def end(self, status: int, when: float | None = None) -> None:
        """Learn that the program's process has ended, now or at that monotonic time."""
        if self._status is not None:
            return
        self._status = status
        self._duration = (monotonic() if when is None else when) - self._started
        if self._timer is not None:
            self._timer.cancel()
        if self._inlet is not None:
            self._inlet.close()
        if not self._is_doomed or self._is_hunted:
            self._drain()

    def _drain(self) -> None:
        # Anew, if a CANCEL finds us draining already: each outlet keeps only the last callback.
        self._undrained = len(self._outlets)
        for outlet in self._outlets:
            outlet.drain(self._drained, is_final=self._is_hunted)

    def _drained(self) -> None:
        self._undrained -= 1
        if self._undrained == 0 and (not self._is_doomed or self._is_hunted):
            self._answer()

    def _answer(self) -> None:
        is_truncated = any(outlet.is_truncated for outlet in self._outlets)
        for outlet in self._outlets:
            self._guest.linger(outlet)
        if self._cleanup is not None:
            self._cleanup()
        self._guest.retire(self._tag)
        if self._request.is_cancelled:
            self._request.fail("cancelled", "the run was cancelled, and all that it started killed")
            return
        assert self._status is not None
        answer = exit_report(self._status)
        answer["timed_out"] = self._has_timed_out
        answer["truncated"] = is_truncated
        answer["duration"] = self._duration
        self._request.respond(answer)


def exit_report(status: int) -> dict[str, Any]:
    """Return `exit_code` and `signal` for a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return {"exit_code": 128 + number, "signal": number}
    return {"exit_code": os.WEXITSTATUS(status), "signal": None}


def start(
    guest: Guest,
    request: Request,
    cwd: str | None,
    with_stdin: bool,
    max_output: int | None,
    program: Callable[[], None],
) -> Run:
    """Fork a child that runs `program` on pipes of its own; Refusal if it cannot be started."""
    plumbing = guest.plumb(with_stdin)
    try:
        tag, pid = guest.fork(program, cwd, plumbing.stdin, plumbing.stdout, plumbing.stderr)
    except Exception:
        plumbing.close()
        raise
    plumbing.close_theirs()
    return _watch(guest, request, tag, pid, plumbing, max_output)


def adopt(
    guest: Guest, request: Request, max_output: int | None, taken: Taken | None
) -> Run | None:
    """Watch over a spare that has got its order; None if there was none to take."""
    if taken is None:
        return None
    tag, pid, plumbing = taken
    return _watch(guest, request, tag, pid, plumbing, max_output)


def resume(
    guest: Guest, request: Request, tag: int, pid: int, plumbing: Plumbing, early: EarlyRun
) -> Run:
    """Watch over a program that has come so far without this guest; it gets no input."""
    outlets = _outlets(guest, plumbing)
    for outlet, left, is_truncated in zip(outlets, early.left, early.is_truncated):
        outlet.attach(request, left)
        outlet.is_truncated = is_truncated
    plumbing.close_theirs()
    resumed = Run(guest, request, tag, pid, outlets, None, early)
    resumed.limit(early.timeout)
    return resumed


def _watch(
    guest: Guest, request: Request, tag: int, pid: int, plumbing: Plumbing, max_output: int | None
) -> Run:
    outlets = _outlets(guest, plumbing)
    for outlet in outlets:
        outlet.attach(request, max_output)
    inlet = None
    if plumbing.input is not None:
        end = plumbing.input
        inlet = Inlet(guest.loop, end, lambda: os.close(end))
    return Run(guest, request, tag, pid, outlets, inlet)


def _outlets(guest: Guest, plumbing: Plumbing) -> tuple[Outlet, Outlet]:
    loop, connection = guest.loop, guest.connection
    return (
        Outlet(loop, connection, plumbing.output, frames.STDOUT),
        Outlet(loop, connection, plumbing.error, frames.STDERR),
    )
