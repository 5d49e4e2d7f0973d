from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as with_values
from hypothesis import strategies as st

from sandpool.errors import InvalidToolArgument
from sandpool.tools.arguments import check_arguments, given, object_schema, schema_of

SCHEMA = object_schema(
    {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string"}},
        "point": {
            "type": "object",
            "properties": {"x": {"type": "integer"}},
            "additionalProperties": {"type": "string"},
        },
        "either": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
        "maybe": {"type": ["string", "null"]},
        "any": {},
    },
    (),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", ""),
        ("count", -1),
        ("ratio", 1),
        ("ratio", 0.5),
        ("flag", False),
        ("names", []),
        ("names", ("a", "b")),
        ("point", {"x": 1, "name": "a"}),
        ("either", 1),
        ("either", [1, 2]),
        ("maybe", None),
        ("maybe", "a"),
        ("any", object()),
        ("text", None),
    ],
)
def test_a_value_of_the_right_type_passes(name: str, value: object) -> None:
    check_arguments("tool", SCHEMA, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", 1, "argument 'text' must be string, not int"),
        ("text", b"", "argument 'text' must be string, not bytes"),
        ("count", 1.0, "argument 'count' must be integer, not float"),
        ("count", True, "argument 'count' must be integer, not bool"),
        ("ratio", "1", "argument 'ratio' must be number, not str"),
        ("ratio", False, "argument 'ratio' must be number, not bool"),
        ("flag", 1, "argument 'flag' must be boolean, not int"),
        ("names", "ab", "argument 'names' must be array of strings, not str"),
        ("names", ["a", 1], r"argument 'names\[1\]' must be string, not int"),
        ("point", [], "argument 'point' must be object, not list"),
        ("point", {"x": "1"}, "argument 'point.x' must be integer, not str"),
        ("point", {"y": 1}, "argument 'point.y' must be string, not int"),
        ("either", "1", "argument 'either' must be integer or array of integers, not str"),
        ("either", ["1"], "argument 'either' must be integer or array of integers, not list"),
        ("maybe", 1, "argument 'maybe' must be string or null, not int"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidToolArgument, match=f"^tool: {message}$"):
        check_arguments("tool", SCHEMA, {name: value})


def test_an_unknown_argument_is_refused_unless_the_schema_is_open() -> None:
    with pytest.raises(InvalidToolArgument, match="unknown argument 'b'"):
        check_arguments("tool", object_schema({"a": {}}, ()), {"b": 1})
    check_arguments("tool", object_schema({"a": {}}, (), is_open=True), {"b": 1})


def test_a_missing_argument_is_refused() -> None:
    schema = object_schema({"a": {"type": "string"}}, ("a",))
    with pytest.raises(InvalidToolArgument, match="missing argument 'a'"):
        check_arguments("tool", schema, {})
    with pytest.raises(InvalidToolArgument, match="'a' must be string, not NoneType"):
        check_arguments("tool", schema, {"a": None})


def test_none_counts_as_left_out_where_that_is_allowed() -> None:
    schema = object_schema({"a": {"type": "string"}, "b": {"type": "string"}}, ("a",))
    assert given({"a": "x", "b": None}, schema) == {"a": "x"}


@with_values(
    st.dictionaries(
        st.sampled_from([*SCHEMA["properties"], "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_no_arguments_make_the_check_fail_in_any_other_way(arguments: dict[str, Any]) -> None:
    try:
        check_arguments("tool", SCHEMA, arguments)
    except InvalidToolArgument:
        return
    assert "other" not in arguments


def test_a_signature_becomes_a_schema() -> None:
    async def execute(
        sandbox: object,
        path: str,
        count: int = 3,
        ratio: float | None = None,
        names: list[str] | None = None,
        either: int | str = "x",
        strange: complex = 1j,
    ) -> None:
        """Do nothing."""

    schema = schema_of(execute)
    assert schema["required"] == ["path"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "path": {"type": "string"},
        "count": {"type": "integer", "default": 3},
        "ratio": {"type": "number"},
        "names": {"type": "array"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": "x"},
        "strange": {"default": 1j},
    }


def test_a_signature_that_takes_anything_gives_an_open_schema() -> None:
    async def execute(sandbox: object, **params: Any) -> None:
        """Do nothing."""

    assert schema_of(execute) == object_schema({}, (), is_open=True)
