"""`Portal`: an async resource on an event loop and thread of its own, for callers that block.

There is no blocking twin of any async class: a blocking face is a few lines that pass each call
through a portal.  The portal starts its thread with the first call and opens the resource there;
one task of that thread opens it, keeps it, and closes it.

    new ──call──► open ──close──► closed
     ▲              │
     └──────────────┘ (it could not be opened)

S1  At most one thread of a portal is alive, and that thread alone touches the resource.
S2  Every call that was taken in ends: with its own outcome, or with `ManagerNotStarted`.
S3  What an interrupted call has made, and nobody will ever be told of, is undone.
S4  An open portal is closed once the program's own threads have ended, and before the interpreter
    gives up its threads: a sandbox never outlives the program, and never holds up its end.

Callers may be on any thread, one with a running event loop included: the call blocks that loop, but
does not need it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from sandpool.errors import ManagerNotStarted, Unsupported

R = TypeVar("R")
T = TypeVar("T")

Open = Callable[[], AbstractAsyncContextManager[R]]
"""Returns what is entered on the portal's loop before the first call and left after the last."""

Undo = Callable[[R, T], Awaitable[object]]
"""Takes back what a call has made, given the resource and what the call returned."""

_log = logging.getLogger(__name__)

_UNDO_BOUND = 10.0
"""Seconds that taking back what an interrupted call had made may take."""


class Portal(Generic[R]):
    """Runs one async resource for blocking callers, from any thread of its process."""

    def __init__(self, open_resource: Open[R]) -> None:
        """Know how to open the resource; nothing runs before the first call."""
        self._open_resource = open_resource
        # Reentrant: a signal handler may call while its own thread is in here.
        self._lock = threading.RLock()
        self._session: _Session[R] | None = None  # Invariant S1
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._is_closed

    def call(self, work: Callable[[R], Awaitable[T]], *, undo: Undo[R, T] | None = None) -> T:
        """Await `work` on the resource; return what it returns, or raise what it raises.

        An exception that a signal handler raises meanwhile, such as `KeyboardInterrupt`, cancels
        the call and goes on when the call has ended; a second one does not wait for that.

        Args:
            work: What to await.
            undo: Takes back what `work` has made, where its caller was interrupted after all.

        Raises:
            ManagerNotStarted: It is closed, or was closed during the call, or was opened by the
                process that this one is a fork of.
            Unsupported: The caller is on the portal's own thread, and would wait for itself.
        """
        session = self._need_session()
        session.wait_open()
        call = _Call(work, undo)
        try:
            session.submit(call.run, call.outcome)
            return call.outcome.result()
        except BaseException:
            if not call.has_failed:
                # Interrupted: whether the call has not begun, is going on or has just succeeded.
                session.retract(call)
            raise

    def close(self) -> None:
        """Cancel the calls in progress, close the resource and end the thread.

        Returns when all that is done, also to a second caller.  No effect on a closed portal, nor
        in a fork of the process that opened it.  Raises `Unsupported` on the portal's own thread.
        """
        session = self._session
        # Before the lock: in a fork, its holder may be a thread that is not there any more.
        if session is not None:
            if session.is_foreign:
                return
            session.refuse_own_thread()
        with self._lock:
            self._is_closed = True
            session = self._session
        if session is not None:
            session.end()

    def _need_session(self) -> _Session[R]:
        session = self._session
        if session is not None and session.is_foreign:
            raise ManagerNotStarted(
                f"this client was opened by process {session.pid}, of which process {os.getpid()} "
                "is a fork; make another one here"
            )
        with self._lock:
            if self._is_closed:
                raise ManagerNotStarted("this client is closed")
            if self._session is None:
                _warden.watch(self)
                self._session = _Session(self._open_resource, self._ended)
                try:
                    self._session.start()
                except RuntimeError:  # no thread can be had; maybe later
                    self._session = None
                    raise
            return self._session

    def _ended(self, session: _Session[R], *, was_open: bool) -> None:
        """Be told by a session that its thread is about to end."""
        with self._lock:
            if self._session is session:
                _warden.forget(self)
                if not was_open:
                    self._session = None


class _Session(Generic[R]):
    """The thread of a portal, from the opening of the resource to its close."""

    def __init__(self, open_resource: Open[R], on_end: Callable[..., None]) -> None:
        self.pid = os.getpid()
        self._open_resource = open_resource
        self._on_end = on_end
        self._opened: Future[tuple[BlockingPortal, R]] = Future()
        self._lock = threading.RLock()
        self._is_ending = False
        self._pending: set[Future[Any]] = set()  # Invariant S2
        # A daemon, as its workers are then: the interpreter does not wait for it, the warden does.
        self._thread = threading.Thread(target=self._run, name="sandpool", daemon=True)

    @property
    def is_foreign(self) -> bool:
        """Whether it belongs to the process that this one is a fork of."""
        return self.pid != os.getpid()

    def refuse_own_thread(self) -> None:
        """Raise `Unsupported` on the thread that the caller would wait for."""
        # Not by its id, which the system gives to another thread once this one has ended.
        if threading.current_thread() is self._thread:
            raise Unsupported("a blocking call on the client's own thread would wait for itself")

    def start(self) -> None:
        """Start the thread; does not wait for the resource."""
        self._thread.start()

    def wait_open(self) -> None:
        """Return once the resource is open; raises what opening it raised."""
        self.refuse_own_thread()
        self._opened.result()

    def submit(self, work: Callable[[R], Awaitable[None]], outcome: Future[Any]) -> None:
        """Have `work` awaited, which sets `outcome`; called when the resource is open."""
        portal, resource = self._opened.result()
        # The lock is held until the loop has the call: no `end` comes in between and leaves it.
        with self._lock:
            if self._is_ending:
                raise ManagerNotStarted("this client is closed")
            self._pending.add(outcome)
            outcome.add_done_callback(self._pending.discard)
            portal.start_task_soon(work, resource)

    def retract(self, call: _Call[R, Any]) -> None:
        """Cancel a call, or undo it, and wait for the end of that."""
        done: Future[None] = Future()

        async def retract(resource: R) -> None:
            try:
                await call.retract(resource)
            finally:
                done.set_result(None)

        try:
            self.submit(retract, done)
            done.result()
        except ManagerNotStarted:
            return  # it ends with the resource

    def end(self) -> None:
        """Close the resource and wait for the end of the thread."""
        if self._opened.exception() is None:
            portal, _ = self._opened.result()
            with self._lock:
                self._is_ending = True
                try:
                    portal.call(portal.stop, True)
                except RuntimeError:
                    _log.debug("the portal has stopped already")
        self._thread.join()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            anyio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - the one boundary of this thread
            failure = error
        was_open = self._opened.done()
        self._on_end(self, was_open=was_open)
        if failure is not None and was_open:
            _log.error("a client could not be closed in good order", exc_info=failure)
        elif failure is not None:
            self._opened.set_exception(failure)
        for outcome in list(self._pending):
            outcome.set_exception(ManagerNotStarted("this client was closed before the call"))

    async def _main(self) -> None:
        async with self._open_resource() as resource, BlockingPortal() as portal:
            self._opened.set_result((portal, resource))
            await portal.sleep_until_stopped()


class _Call(Generic[R, T]):
    """One call on its way to the loop and back.  Only `outcome` is for other threads."""

    def __init__(self, work: Callable[[R], Awaitable[T]], undo: Undo[R, T] | None) -> None:
        self.outcome: Future[T] = Future()
        self._work = work
        self._undo = undo
        self._scope: anyio.CancelScope | None = None
        self._has_ended: anyio.Event | None = None
        self._is_unwanted = False

    @property
    def has_failed(self) -> bool:
        """Whether it has ended with an error, and so has made nothing."""
        return self.outcome.done() and self.outcome.exception() is not None

    async def run(self, resource: R) -> None:
        """Do the work and set the outcome."""
        if self._is_unwanted:
            self.outcome.set_exception(ManagerNotStarted("the caller was interrupted"))
            return
        self._has_ended = anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                self.outcome.set_result(await self._work(resource))
                return
            self.outcome.set_exception(ManagerNotStarted("the caller was interrupted"))
        except anyio.get_cancelled_exc_class():
            self.outcome.set_exception(ManagerNotStarted("this client was closed during the call"))
            raise
        except BaseException as error:  # noqa: BLE001 - it is the caller's, of whatever kind
            self.outcome.set_exception(error)
        finally:
            self._has_ended.set()

    async def retract(self, resource: R) -> None:
        """Make it not have happened; called after `run` was submitted, if it ever was."""
        self._is_unwanted = True
        if self._scope is None or self._has_ended is None:
            return  # `run` will find it unwanted
        self._scope.cancel()
        await self._has_ended.wait()
        if self._undo is None or self.has_failed:
            return
        with anyio.move_on_after(_UNDO_BOUND, shield=True) as scope:
            try:
                await self._undo(resource, self.outcome.result())
            except Exception:  # noqa: BLE001 - its caller has an exception of its own already
                _log.exception("what an interrupted call had made could not be taken back")
        if scope.cancelled_caught:
            _log.error("what an interrupted call had made was not gone in %s s", _UNDO_BOUND)


class _Warden:
    """Closes what is open when the program ends.  Invariant S4.

    Not `atexit`: its functions are called when no thread can be started any more, and closing
    sandboxes needs some.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Know of nothing; called in a fork, where what was open is somebody else's."""
        self._lock = threading.Lock()
        self._open: set[Portal[Any]] = set()
        self._thread: threading.Thread | None = None

    def watch(self, portal: Portal[Any]) -> None:
        """Close this portal at the end, unless it is forgotten before."""
        with self._lock:
            self._open.add(portal)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="sandpool-warden", daemon=False)
                thread.start()
                self._thread = thread

    def forget(self, portal: Portal[Any]) -> None:
        """Be told that a portal has closed."""
        with self._lock:
            self._open.discard(portal)

    def _run(self) -> None:
        threading.main_thread().join()
        # The program goes on for as long as one of its own threads does, and they may start others.
        while others := _others():
            for thread in others:
                thread.join()
        with self._lock:
            still_open = list(self._open)
        for portal in still_open:
            portal.close()


def _others() -> list[threading.Thread]:
    """Return the living threads, besides this one, that the interpreter waits for."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.is_alive() and not thread.daemon and thread is not threading.current_thread()
    ]


_warden = _Warden()
os.register_at_fork(after_in_child=_warden.renew)
