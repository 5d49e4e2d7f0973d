"""Tables for people, of things that tenants have named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandpool.cli.output import format_table, milliseconds, printable

CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())


def test_columns_are_as_wide_as_they_must_be_and_numbers_stand_to_the_right() -> None:
    table = format_table(("name", "n", "x"), [("a", 5, None), ("longer", 123, True)])
    assert table.splitlines() == [
        "name    n    x",
        "a         5  -",
        "longer  123  yes",
    ]


def test_a_table_without_rows_has_its_columns() -> None:
    assert format_table(("a", "b"), []) == "a  b"


def test_what_moves_a_cursor_is_not_printed() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a\ufffd[2Jb\ufffd\ufffdc\ufffdd"


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_every_row_is_one_line_of_printable_characters(rows: list[tuple[object, object]]) -> None:
    lines = format_table(("one", "two"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)


def test_a_span_is_told_in_milliseconds() -> None:
    assert (milliseconds(0.0123), milliseconds(None)) == ("12.3 ms", None)
