"""The fields of a request: everything is taken, checked, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.guest.fields import Fields
from sandpool.guest.refusal import Refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

TAKERS: dict[str, Callable[[Fields], Any]] = {
    "text": lambda fields: fields.text("x"),
    "flag": lambda fields: fields.flag("x", False),
    "integer": lambda fields: fields.integer("x"),
    "seconds": lambda fields: fields.seconds("x"),
    "path": lambda fields: fields.path("x"),
    "strings": lambda fields: fields.strings("x"),
    "argv": lambda fields: fields.strings("x", required=True),
    "environment": lambda fields: fields.environment("x"),
    "rlimits": lambda fields: fields.rlimits("x"),
}


def refusal(values: dict[str, Any], take: Callable[[Fields], Any]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        take(Fields(values))
    assert refused.value.code == "bad_request"
    return refused.value


@pytest.mark.parametrize("taker", TAKERS)
@settings(max_examples=50)
@given(value=JSON)
def test_any_value_is_taken_or_refused(taker: str, value: object) -> None:
    try:
        TAKERS[taker](Fields({"x": value}))
    except Refusal as refused:
        assert refused.code == "bad_request"
        assert "'x'" in refused.message


def test_a_field_that_nobody_took_is_refused() -> None:
    fields = Fields({"timeout": 1, "max_outptu": 5})
    assert fields.seconds("timeout") == 1.0
    with pytest.raises(Refusal, match="max_outptu"):
        fields.finish()


def test_nothing_left_is_fine() -> None:
    Fields({}).finish()


@pytest.mark.parametrize("taker", ["text", "integer", "path", "argv"])
@pytest.mark.parametrize("values", [{}, {"x": None}], ids=["absent", "null"])
def test_a_required_field_cannot_be_left_out(taker: str, values: dict[str, Any]) -> None:
    assert "missing" in refusal(dict(values), TAKERS[taker]).message


@pytest.mark.parametrize("values", [{}, {"x": None}], ids=["absent", "null"])
def test_an_optional_field_has_its_default(values: dict[str, Any]) -> None:
    assert Fields(dict(values)).text("x", "default") == "default"
    assert Fields(dict(values)).flag("x", True) is True
    assert Fields(dict(values)).integer("x", None) is None
    assert Fields(dict(values)).seconds("x") is None
    assert Fields(dict(values)).path("x", None) is None
    assert Fields(dict(values)).strings("x") == []
    assert Fields(dict(values)).environment("x") == {}


@pytest.mark.parametrize(("value", "is_taken"), [(-1, False), (0, True), (9, True), (10, False)])
def test_a_whole_number_has_bounds(value: int, is_taken: bool) -> None:
    if is_taken:
        assert Fields({"x": value}).integer("x", high=9) == value
    else:
        refusal({"x": value}, lambda fields: fields.integer("x", high=9))


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_only_a_whole_number_is_one(value: object) -> None:
    refusal({"x": value}, TAKERS["integer"])


@pytest.mark.parametrize("value", [0, -1, -0.0, math.inf, math.nan, True, "1"])
def test_a_time_that_cannot_pass_is_refused(value: object) -> None:
    refusal({"x": value}, TAKERS["seconds"])


@given(value=st.floats(min_value=1e-9, max_value=1e300))
def test_a_time_is_never_longer_than_a_timer_can_wait(value: float) -> None:
    taken = Fields({"x": value}).seconds("x")
    assert taken is not None
    assert taken == value or taken < 1e9


def test_a_time_too_long_for_a_float_is_as_long_as_a_timer_can_wait() -> None:
    taken = Fields({"x": 10**400}).seconds("x")
    assert taken is not None
    assert taken < 1e9


@pytest.mark.parametrize("taker", ["path", "strings", "argv", "environment"])
@pytest.mark.parametrize("text", ["nul\0", "\ud800"])
def test_what_the_kernel_cannot_take_is_refused(taker: str, text: str) -> None:
    value: object = {"NAME": text} if taker == "environment" else text
    refusal({"x": [text] if taker in ("strings", "argv") else value}, TAKERS[taker])


def test_bytes_that_are_no_text_pass_as_surrogates() -> None:
    assert Fields({"x": "/r\udce9sum"}).path("x") == "/r\udce9sum"


@pytest.mark.parametrize("argv", [[], [""], ["", "x"], "ls", [1], [None]])
def test_a_command_begins_with_its_program(argv: object) -> None:
    refusal({"x": argv}, TAKERS["argv"])


@pytest.mark.parametrize("name", ["", "A=B", "A\0", "\ud800"])
def test_a_variable_needs_a_name_that_can_be_one(name: str) -> None:
    refusal({"x": {name: "1"}}, TAKERS["environment"])


def test_a_variable_is_set_or_removed() -> None:
    changes = {"SET": "a=b", "EMPTY": "", "GONE": None}
    assert Fields({"x": dict(changes)}).environment("x") == changes


def test_an_empty_path_is_none() -> None:
    refusal({"x": ""}, TAKERS["path"])


def test_rlimits_are_whole_numbers_by_the_names_of_resources() -> None:
    assert Fields({"x": {"RLIMIT_NOFILE": 64}}).rlimits("x") == {"RLIMIT_NOFILE": 64}
    wrong: tuple[object, ...] = (
        {"NOFILE": 64},
        {"RLIMIT_NOSUCH": 64},
        {"RLIMIT_NOFILE": -1},
        {"RLIMIT_NOFILE": True},
        {"RLIMIT_NOFILE": 1.5},
        {"RLIMIT_NOFILE": 1 << 62},
        [],
    )
    for value in wrong:
        refusal({"x": value}, TAKERS["rlimits"])
