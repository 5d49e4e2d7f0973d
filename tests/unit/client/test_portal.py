"""The portal: its thread's life, and calls that fail, are interrupted or overlap its close."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sandpool.errors import ManagerNotStarted, PoolNotFound, Unsupported
from sandpool.sync import Portal


class Desk:
    """A resource that notes what is done with it."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.fails_to_open = False
        self.made: list[str] = []
        self.threads: set[int] = set()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Desk]:
        if self.fails_to_open:
            raise PoolNotFound("not today")
        self.opened += 1
        self.threads.add(threading.get_ident())
        yield self
        self.threads.add(threading.get_ident())
        self.closed += 1

    async def make(self, name: str) -> str:
        self.threads.add(threading.get_ident())
        self.made.append(name)
        return name

    async def unmake(self, name: str) -> None:
        self.made.remove(name)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def portal(desk: Desk) -> Iterator[Portal[Desk]]:
    portal = Portal(desk.open)
    yield portal
    portal.close()


def interrupt_main_thread() -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


async def get_ident(_: Desk) -> int:
    return threading.get_ident()


def unmake(desk: Desk, name: str) -> Awaitable[None]:
    return desk.unmake(name)


# Its life.


def test_nothing_runs_before_the_first_call(desk: Desk) -> None:
    before = threading.active_count()
    portal = Portal(desk.open)
    assert threading.active_count() == before
    portal.close()
    assert desk.opened == 0


def test_the_resource_is_touched_by_one_thread_only(desk: Desk, portal: Portal[Desk]) -> None:
    with ThreadPoolExecutor(4) as threads:
        names = [f"item {number}" for number in range(20)]

        def make(name: str) -> str:
            return portal.call(lambda desk: desk.make(name))

        assert list(threads.map(make, names)) == names
    portal.close()
    assert sorted(desk.made) == sorted(names)
    assert len(desk.threads) == 1
    assert threading.get_ident() not in desk.threads
    assert (desk.opened, desk.closed) == (1, 1)


def test_closing_twice_closes_once(desk: Desk, portal: Portal[Desk]) -> None:
    portal.call(lambda desk: desk.make("item"))
    portal.close()
    portal.close()
    assert desk.closed == 1


def test_closing_from_several_threads_closes_once(desk: Desk, portal: Portal[Desk]) -> None:
    portal.call(lambda desk: desk.make("item"))
    with ThreadPoolExecutor(4) as threads:
        for closing in [threads.submit(portal.close) for _ in range(4)]:
            closing.result()
            assert desk.closed == 1


def test_no_later_thread_is_taken_for_the_portals_own(portal: Portal[Desk]) -> None:
    idents = {portal.call(get_ident)}
    portal.close()
    failures: list[Exception] = []

    def close_again() -> None:
        idents.add(threading.get_ident())
        try:
            portal.close()
        except Unsupported as error:
            failures.append(error)

    for _ in range(5):
        thread = threading.Thread(target=close_again)
        thread.start()
        thread.join()
    assert len(idents) < 6, "this system gives no id a second time: nothing was tested"
    assert failures == []


def test_no_call_is_taken_after_the_close(desk: Desk, portal: Portal[Desk]) -> None:
    portal.close()
    with pytest.raises(ManagerNotStarted, match="closed"):
        portal.call(lambda desk: desk.make("item"))
    assert desk.opened == 0


def test_its_thread_ends_with_the_close(portal: Portal[Desk]) -> None:
    portal.call(lambda desk: desk.make("item"))
    assert "sandpool" in {thread.name for thread in threading.enumerate()}
    portal.close()
    assert "sandpool" not in {thread.name for thread in threading.enumerate()}


def test_a_resource_that_cannot_be_opened_is_tried_again(desk: Desk, portal: Portal[Desk]) -> None:
    desk.fails_to_open = True
    with pytest.raises(PoolNotFound, match="not today"):
        portal.call(lambda desk: desk.make("item"))
    desk.fails_to_open = False
    assert portal.call(lambda desk: desk.make("item")) == "item"


def test_a_portal_that_could_not_be_opened_can_be_closed(desk: Desk, portal: Portal[Desk]) -> None:
    desk.fails_to_open = True
    with pytest.raises(PoolNotFound):
        portal.call(lambda desk: desk.make("item"))
    portal.close()
    assert portal.is_closed


# Calls.


def test_an_error_is_raised_as_it_was(portal: Portal[Desk]) -> None:
    error = PoolNotFound("there is none")

    async def fail(_: Desk) -> None:
        raise error

    with pytest.raises(PoolNotFound) as caught:
        portal.call(fail)
    assert caught.value is error


def test_an_error_ends_no_other_call(desk: Desk, portal: Portal[Desk]) -> None:
    async def leave(_: Desk) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        portal.call(leave)
    assert portal.call(lambda desk: desk.make("item")) == "item"
    assert desk.opened == 1


def test_a_failed_call_is_not_undone(desk: Desk, portal: Portal[Desk]) -> None:
    undone: list[str] = []

    async def fail(_: Desk) -> str:
        raise PoolNotFound("there is none")

    async def undo(_: Desk, name: str) -> None:
        undone.append(name)

    with pytest.raises(PoolNotFound):
        portal.call(fail, undo=undo)
    assert undone == []


def test_the_portals_own_thread_is_refused(desk: Desk, portal: Portal[Desk]) -> None:
    async def call_back(_: Desk) -> None:
        portal.call(lambda desk: desk.make("item"))

    async def close(_: Desk) -> None:
        portal.close()

    for work in (call_back, close):
        with pytest.raises(Unsupported, match="own thread"):
            portal.call(work)
    assert portal.call(lambda desk: desk.make("another")) == "another"
    assert desk.made == ["another"]


@pytest.mark.anyio
async def test_a_call_needs_nothing_of_a_loop_that_is_running_here(portal: Portal[Desk]) -> None:
    assert portal.call(lambda desk: desk.make("item")) == "item"


def test_a_close_ends_the_calls_in_progress(desk: Desk, portal: Portal[Desk]) -> None:
    has_begun = threading.Event()

    async def wait(_: Desk) -> None:
        has_begun.set()
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as threads:
        call: Future[None] = threads.submit(portal.call, wait)
        has_begun.wait()
        portal.close()
        with pytest.raises(ManagerNotStarted, match="during the call"):
            call.result()
    assert desk.closed == 1


# Interrupted calls.


def test_an_interrupt_cancels_the_call_and_waits_for_its_end(portal: Portal[Desk]) -> None:
    ends: list[str] = []

    async def wait(_: Desk) -> None:
        interrupt_main_thread()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            ends.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        portal.call(wait)
    assert ends == ["cleaned up"]


def test_what_a_call_made_for_an_interrupted_caller_is_undone(
    desk: Desk, portal: Portal[Desk]
) -> None:
    async def make(desk: Desk) -> str:
        # No await comes after it: the call succeeds, and the caller never gets to know.
        interrupt_main_thread()
        return await desk.make("item")

    with pytest.raises(KeyboardInterrupt):
        portal.call(make, undo=unmake)
    assert desk.made == []


def test_a_failure_to_undo_does_not_hide_the_interrupt(
    desk: Desk, portal: Portal[Desk], caplog: pytest.LogCaptureFixture
) -> None:
    async def make(desk: Desk) -> str:
        interrupt_main_thread()
        return await desk.make("item")

    async def fail(_: Desk, name: str) -> None:
        raise PoolNotFound(name)

    with pytest.raises(KeyboardInterrupt):
        portal.call(make, undo=fail)
    assert "could not be taken back" in caplog.text


def test_a_second_interrupt_does_not_wait(portal: Portal[Desk]) -> None:
    may_end = threading.Event()

    async def resist(_: Desk) -> None:
        interrupt_main_thread()
        try:
            await anyio.sleep_forever()
        finally:
            interrupt_main_thread()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(may_end.wait)

    with pytest.raises(KeyboardInterrupt):
        portal.call(resist)
    may_end.set()
    assert portal.call(lambda desk: desk.make("item")) == "item"


def test_an_interrupt_leaves_the_other_calls_alone(portal: Portal[Desk]) -> None:
    may_end = threading.Event()
    has_begun = threading.Event()

    async def wait(desk: Desk) -> str:
        has_begun.set()
        await anyio.to_thread.run_sync(may_end.wait)
        return await desk.make("item")

    async def be_interrupted(_: Desk) -> None:
        interrupt_main_thread()
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(portal.call, wait)
        has_begun.wait()
        with pytest.raises(KeyboardInterrupt):
            portal.call(be_interrupted)
        may_end.set()
        assert other.result() == "item"


# Programs.


def run_program(program: str) -> str:
    """Return what a program prints that says nothing on stderr and ends with 0."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PREAMBLE + program],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


PREAMBLE = """
import os, sys, threading
from contextlib import asynccontextmanager
import anyio
import anyio.lowlevel
import anyio.to_thread
from sandpool.errors import SandpoolError
from sandpool.sync import Portal

@asynccontextmanager
async def open_resource():
    yield "open"
    await anyio.to_thread.run_sync(lambda: None)
    print("closed", flush=True)

async def say(resource):
    return resource

portal = Portal(open_resource)
"""


@pytest.mark.slow
def test_what_was_never_closed_is_closed_when_the_program_ends() -> None:
    assert run_program("print(portal.call(say), flush=True)") == "open\nclosed\n"


@pytest.mark.slow
def test_a_program_may_go_on_in_a_thread_after_its_main_thread() -> None:
    program = """
print(portal.call(say), flush=True)

def go_on():
    threading.main_thread().join()
    threading.Thread(target=go_on_still, args=[threading.current_thread()]).start()

def go_on_still(starter):
    # So many that a close, were there one after the first thread, would come in between.
    starter.join()
    print({portal.call(say) for _ in range(500)}, flush=True)

threading.Thread(target=go_on).start()
"""
    assert run_program(program) == "open\n{'open'}\nclosed\n"


@pytest.mark.slow
def test_a_daemon_thread_in_a_call_does_not_hold_up_the_end() -> None:
    program = """
async def wait(resource):
    has_begun.set()
    await anyio.sleep_forever()

def stay():
    try:
        portal.call(wait)
    except SandpoolError:
        pass

has_begun = threading.Event()
threading.Thread(target=stay, daemon=True).start()
has_begun.wait()
"""
    assert run_program(program) == "closed\n"


@pytest.mark.slow
def test_a_fork_is_refused_and_closes_nothing_of_its_parents() -> None:
    program = """
print(portal.call(say), flush=True)
child = os.fork()
if child == 0:
    portal.close()
    try:
        portal.call(say)
    except SandpoolError as error:
        print(error.code, "fork" in str(error), flush=True)
    with_own = Portal(open_resource)
    print(with_own.call(say), flush=True)
    sys.exit()
os.waitpid(child, 0)
print(portal.call(say), flush=True)
"""
    assert run_program(program) == ("open\nmanager_not_started True\nopen\nclosed\nopen\nclosed\n")
