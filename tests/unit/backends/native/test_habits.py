"""What new sandboxes are made ready for, given what the last ones were used for."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.native.habits import Habit, is_plain
from sandpool.guest import frames

REMEMBERED = 8
FIELDS = ("version", "epoch", "env", "timeout", "max_output", "cwd", "argv", "stdin", "fully")


def test_what_nobody_has_used_yet_is_taken_for_plain() -> None:
    assert Habit().is_plain


@given(st.lists(st.booleans(), max_size=40))
def test_the_next_sandbox_is_plain_if_the_last_eight_were(were_plain: list[bool]) -> None:
    habit = Habit()
    for was_plain in were_plain:
        habit.note(was_plain)
    assert habit.is_plain == (False not in were_plain[-REMEMBERED:])


@given(
    st.sampled_from(["exec", "pty", "limit", "file_read", "reset", "", "RUN_CODE"]), st.booleans()
)
def test_other_requests_are_never_plain(op: str, has_fields: bool) -> None:
    assert not is_plain(op, {"code": "1"} if has_fields else {})


@given(st.sets(st.sampled_from(FIELDS)))
def test_a_run_is_plain_with_what_limits_it_and_its_environment(names: set[str]) -> None:
    fields = {"code": "1", **dict.fromkeys(names, 1)}
    allowed = {"epoch", "env", "timeout", "max_output"}
    assert is_plain("run_code", fields) == (names <= allowed)


@given(st.sampled_from(["hello", "ping", "warm", "bind"]), st.sets(st.sampled_from(FIELDS)))
def test_other_plain_requests_have_few_fields(op: str, names: set[str]) -> None:
    allowed = {"hello": {"version", "env"}, "bind": {"env"}}.get(op, set()) | {"epoch"}
    assert is_plain(op, dict.fromkeys(names, 1)) == (names <= allowed)


@given(
    st.text(st.characters(), max_size=50)
    | st.sampled_from(["x", "\n", "é", "\u20ac", "\U0001f600"]),
    st.integers(0, 16_384),
)
def test_code_is_plain_that_goes_into_one_small_frame(text: str, times: int) -> None:
    code = (text * times)[:16_384]
    size = len(json.dumps(code))
    if size > frames.CHUNK:
        assert not is_plain("run_code", {"code": code})
    if size < 50_000:
        assert is_plain("run_code", {"code": code})


def test_code_that_is_not_in_its_request_is_not_plain() -> None:
    assert not is_plain("run_code", {"epoch": 1, "timeout": 5})
