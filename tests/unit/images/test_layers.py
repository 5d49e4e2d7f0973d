"""What one member of a layer asks for, by its own text alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.errors import ImageRefused
from sandpool.images.layers import Action, read_change, read_path
from sandpool.tar import Header

FILE = Header("a/b", "", b"0", 0o4755, 1, 2, 3, 512, 4)


@pytest.mark.parametrize(
    ("name", "action", "path"),
    [
        ("./a//b/.", Action.FILE, ("a", "b")),
        ("a/.wh.b", Action.REMOVE, ("a", "b")),
        (".wh.b", Action.REMOVE, ("b",)),
        ("a/.wh..wh..opq", Action.CLEAR, ("a",)),
        (".wh..wh..opq", Action.CLEAR, ()),
        (".wh..wh.plnk", Action.NOTHING, ()),
        ("a/.wh", Action.FILE, ("a", ".wh")),
        (".wh.d/f", Action.FILE, (".wh.d", "f")),
    ],
)
def test_a_name_says_what_is_to_be_done_and_where(
    name: str, action: Action, path: tuple[str, ...]
) -> None:
    change = read_change(replace(FILE, name=name))
    assert (change.action, change.path) == (action, path)


def test_no_file_keeps_bits_that_give_rights() -> None:
    assert read_change(FILE).mode == 0o755
    assert read_change(replace(FILE, mode=0o7777)).mode == 0o777
    assert read_change(replace(FILE, kind=b"5", mode=0o7777)).mode == 0o1777


@pytest.mark.parametrize(
    "change",
    [
        {"name": "/etc/passwd"},
        {"name": ".."},
        {"name": "a/../b"},
        {"name": "a\0b"},
        {"name": "n" * 256},
        {"name": "/".join("d" * 129)},
        {"name": "d/" * 3000},
        {"name": "."},
        {"name": ".wh."},
        {"name": "a/.wh.."},
        {"name": ".wh..."},
        {"kind": b"3"},
        {"kind": b"4"},
        {"kind": b"6"},
        {"kind": b"9"},
        {"kind": b"2", "link": ""},
        {"kind": b"2", "link": "a\0"},
        {"kind": b"2", "link": "x" * 4096},
        {"kind": b"1", "link": "../x"},
        {"kind": b"1", "link": ""},
        {"kind": b"1", "link": "/"},
    ],
    ids=str,
)
def test_what_no_image_may_bring_is_refused(change: dict[str, str | bytes]) -> None:
    with pytest.raises(ImageRefused):
        read_change(replace(FILE, **change))  # type: ignore[arg-type]


@given(st.text(max_size=60))
def test_a_path_never_leads_up(name: str) -> None:
    try:
        path = read_path(name)
    except ImageRefused:
        return
    assert not {"", ".", ".."} & set(path)
    assert all("/" not in part and "\0" not in part for part in path)
