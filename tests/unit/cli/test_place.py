"""How the two ends of `sandpool sandbox cp` are read."""

from __future__ import annotations

import pytest

from sandpool.cli.copy import Place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("box:a/b", Place("box", "a/b")),
        ("box:/a:b", Place("box", "/a:b")),
        ("box:", Place("box", ".")),
        ("a/b", Place(None, "a/b")),
        ("./box:a", Place(None, "./box:a")),
        ("/tmp/box:a", Place(None, "/tmp/box:a")),
        ("..:a", Place(None, "..:a")),
        (":a", Place(None, ":a")),
        ("-", Place(None, "-")),
    ],
)
def test_an_end_is_in_a_sandbox_or_here(text: str, place: Place) -> None:
    assert Place.parse(text) == place
