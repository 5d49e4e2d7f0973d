"""Forking along programs of system calls: compiled and in Python, with the same outcome."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pyseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.backends.native.template import branch as module
from sandpool.backends.native.template.branch import Brancher
from sandpool.backends.native.template.calls import (
    ANY_ERROR,
    CHILD,
    ERROR,
    FAILED,
    Call,
    Program,
    Role,
    Slot,
    Slots,
)

NAMES = ("dup", "close", "getpid", "getppid", "getuid", "openat", "read", "write", "pipe2", "lseek")
NUMBERS = {name: pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) for name in NAMES}
A, B, C = Slot(0), Slot(1), Slot(2)
NO_FD = 100_000
FAILS = Call("close", (NO_FD,))

Outcome = dict[str, Any]
Forker = Callable[..., list[Outcome]]


def program(*calls: Call) -> Program:
    return Program(calls, NUMBERS)


def told(slots: Slots) -> Outcome:
    numbers = slots.numbers
    return {
        "a": numbers[A],
        "b": numbers[B],
        "failed": numbers[FAILED],
        "error": numbers[ERROR] if numbers[FAILED] >= 0 else 0,
        "child": numbers[CHILD],
        "pid": os.getpid(),
        "parent": os.getppid(),
    }


def fork_along(
    first: Sequence[Call], second: Sequence[Call] | None = None, before: Sequence[Call] = ()
) -> list[Outcome]:
    """Return what the children found, the first one's first."""
    slots = Slots()
    brancher = Brancher(program(*before), program(), slots)
    read, write = os.pipe()

    def tell() -> NoReturn:
        try:
            os.write(write, json.dumps(told(slots)).encode() + b"\n")
        finally:
            os._exit(0)

    role = None if second is None else Role(program(*second), tell)
    way = brancher.way(program(*first), role)
    pid = brancher.branch(way)
    if pid == 0:
        if slots.numbers[CHILD] > 0:
            os.waitpid(slots.numbers[CHILD], 0)
        tell()
    os.close(write)
    with open(read) as file:
        found = [json.loads(line) for line in file]
    assert os.waitpid(pid, 0)[1] == 0
    for outcome in found:
        assert outcome["pid"] == pid or outcome["parent"] == pid
    return sorted(found, key=lambda outcome: outcome["pid"] != pid)


@pytest.fixture(params=["compiled", "in Python"])
def fork(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Forker:
    if request.param == "in Python":
        monkeypatch.setattr(module, "compiled", lambda: None)
    elif not module.is_compiled():
        pytest.skip("this host lacks a C compiler: libbranch.so.1 was not made")
    return fork_along


def test_the_child_makes_the_calls_and_keeps_their_results(fork: Forker) -> None:
    (child,) = fork([Call("getpid", (), saved=A), Call("getppid", (), saved=B)])
    assert (child["a"], child["b"]) == (child["pid"], os.getpid())
    assert (child["failed"], child["child"]) == (-1, -1)


def test_a_slot_stands_for_the_number_in_it(fork: Forker) -> None:
    opened = Call("openat", (-100, b"/dev/zero", os.O_RDONLY), saved=A)
    buffer = ctypes.create_string_buffer(4)
    (child,) = fork([opened, Call("read", (A, buffer, 3), saved=B), Call("close", (A,))])
    assert child["b"] == 3
    assert child["failed"] == -1


@pytest.mark.usefixtures("fork")
def test_a_call_may_write_into_two_slots() -> None:
    slots = Slots()
    way = Brancher(program(), program(), slots)
    call = Call("pipe2", (slots.address(A), os.O_CLOEXEC))
    pid = way.branch(way.way(program(call, Call("close", (A,)), Call("close", (B,))), None))
    if pid == 0:
        os._exit(0 if slots.numbers[FAILED] == -1 and slots.numbers[B] > slots.numbers[A] else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_first_call_that_fails_is_the_last(fork: Forker) -> None:
    (child,) = fork([Call("getpid", (), saved=A), FAILS, Call("getpid", (), saved=B)], second=[])
    assert (child["failed"], child["error"]) == (1, errno.EBADF)
    assert (child["a"], child["b"]) == (child["pid"], 0)
    assert child["child"] == -1, "what failed forks no second child"


@pytest.mark.parametrize("forgiven", [errno.EBADF, ANY_ERROR])
def test_a_forgiven_error_is_none(fork: Forker, forgiven: int) -> None:
    (child,) = fork([FAILS._replace(forgiven=forgiven), Call("getpid", (), saved=B)])
    assert (child["failed"], child["b"]) == (-1, child["pid"])


def test_another_error_than_the_forgiven_one_is_not_forgiven(fork: Forker) -> None:
    (child,) = fork([FAILS._replace(forgiven=errno.EEXIST)])
    assert (child["failed"], child["error"]) == (0, errno.EBADF)


def test_a_result_that_is_too_low_is_a_failure(fork: Forker) -> None:
    opened = Call("openat", (-100, b"/dev/null", os.O_RDONLY), saved=A)
    buffer = ctypes.create_string_buffer(4)
    (child,) = fork([opened, Call("read", (A, buffer, 1), least=1)])
    assert (child["failed"], child["error"]) == (1, errno.EPROTO)


def test_a_second_child_is_forked_when_the_first_is_through(fork: Forker) -> None:
    first, second = fork([Call("getpid", (), saved=A)], second=[Call("getpid", (), saved=B)])
    assert first["child"] == second["pid"]
    assert (second["a"], second["b"]) == (first["pid"], second["pid"])
    assert first["b"] == 0


def test_a_second_child_that_fails_ends_and_is_nothing(fork: Forker) -> None:
    (first,) = fork([], second=[FAILS])
    assert first["failed"] == -1
    assert first["child"] > 0


def test_nothing_is_forked_when_the_parent_cannot_begin(fork: Forker) -> None:
    def children() -> str:
        return Path("/proc/thread-self/children").read_text()

    before = children()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fork([], before=[FAILS])
    assert children() == before


def test_a_failed_call_is_described_with_its_arguments() -> None:
    made = program(Call("openat", (-100, b"/proc/x", os.O_RDONLY)))
    assert made.describe(0, errno.ENOENT) == "openat(-100, '/proc/x', 0): No such file or directory"


def test_a_call_that_this_machine_has_no_number_for_is_refused_at_once() -> None:
    with pytest.raises(KeyError):
        program(Call("no_such_call", ()))


SLOTS_ = st.sampled_from([A, B, C])
ARGUMENTS = st.one_of(SLOTS_, st.integers(-3, 2), st.just(NO_FD))
CALLS = st.builds(
    Call,
    st.sampled_from(["dup", "lseek", "getuid"]),
    st.lists(ARGUMENTS, max_size=3).map(tuple),
    saved=st.one_of(st.none(), SLOTS_),
    forgiven=st.sampled_from([0, errno.EBADF, errno.ESPIPE, ANY_ERROR]),
    least=st.integers(-1, 3),
)


@pytest.mark.skipif(
    not module.is_compiled(), reason="this host lacks a C compiler: libbranch.so.1 was not made"
)
@settings(max_examples=40, deadline=None)
@given(first=st.lists(CALLS, max_size=6), second=st.none() | st.lists(CALLS, max_size=4))
def test_both_ways_leave_the_same_behind(first: list[Call], second: list[Call] | None) -> None:
    def seen() -> list[Outcome]:
        return [
            {key: value for key, value in outcome.items() if key in ("a", "b", "failed", "error")}
            for outcome in fork_along(first, second)
        ]

    compiled = seen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compiled", lambda: None)
        assert seen() == compiled
