"""What is shown of a value always fits into one frame, and says what was left out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.guest import display, frames


def repeat(unit: str, count: int) -> str:
    return unit * count


LONG = st.builds(repeat, st.text(min_size=1, max_size=4), st.integers(0, 90_000))
TEXTS = st.text(max_size=200) | LONG


@settings(max_examples=30)
@given(text=TEXTS, room=st.integers(24, 4096))
def test_a_shortened_text_keeps_its_ends_and_fits(text: str, room: int) -> None:
    shown = display.shorten(text, room)
    if shown == text:
        assert len(json.dumps(text)) <= room
    else:
        half = room // 24
        assert shown.startswith(text[:half])
        assert shown.endswith(text[-half:])
        # The remark on what is missing comes on top.
        assert len(json.dumps(shown)) <= room + 60


@settings(max_examples=30)
@given(parts=st.dictionaries(st.sampled_from(["text/plain", "text/html", "a/b"]), TEXTS))
def test_a_bundle_always_fits_into_one_frame(parts: dict[str, str]) -> None:
    shown = display.fit(dict(parts))
    assert len(json.dumps({"display": shown, "result": True})) <= frames.MAX_CONTROL
    assert set(shown) <= {*parts, "text/plain"}


def test_the_largest_part_is_the_one_left_out() -> None:
    large = {"text/html": "h" * 300_000, "text/markdown": "small", "text/plain": "plain"}
    shown = display.fit(large)
    assert shown["text/markdown"] == "small"
    assert "text/html" not in shown
    assert shown["text/plain"].startswith("plain\n[text/html left out: 292 KiB")


class Rich:
    def __repr__(self) -> str:
        return "rich"

    def _repr_html_(self) -> str:
        return "<b>rich</b>"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return b"\x89PNG", {"width": 1}

    def _repr_json_(self) -> dict[str, int]:
        return {"a": 1}

    def _repr_latex_(self) -> None:
        return None


class Whole:
    def _repr_mimebundle_(self, **_: Any) -> dict[Any, Any]:
        return {"text/plain": "whole", "x/y": b"\0", 3: "no type", "z/json": object(), "n/n": 4}


class Partly(Rich):
    def _repr_html_(self) -> str:
        raise ValueError("broken html")


class Answering:
    def __repr__(self) -> str:
        return "answering"

    def __getattr__(self, name: str) -> Any:
        def answer(**_: object) -> str:
            return f"made up for {name}"

        return answer


def test_every_representation_is_shown_as_text() -> None:
    assert display.bundle(Rich()) == {
        "text/plain": "rich",
        "text/html": "<b>rich</b>",
        "image/png": base64.b64encode(b"\x89PNG").decode(),
        "application/json": '{"a": 1}',
    }


def test_a_bundle_of_its_own_goes_first_and_what_is_no_text_is_left_out() -> None:
    assert display.bundle(Whole()) == {"text/plain": "whole", "x/y": "AA=="}


def test_a_method_that_fails_costs_only_its_own_part(capsys: pytest.CaptureFixture[str]) -> None:
    shown = display.bundle(Partly())
    assert "text/html" not in shown
    assert shown["text/plain"] == "rich"
    assert "ValueError: broken html" in capsys.readouterr().err


@pytest.mark.parametrize("value", [Answering(), Rich, 5, "text", None], ids=repr)
def test_what_has_no_representations_has_only_its_plain_one(value: object) -> None:
    assert display.bundle(value) == {"text/plain": repr(value)}


def test_a_repr_that_fails_gets_out() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise OSError("no repr")

    with pytest.raises(OSError, match="no repr"):
        display.bundle(Broken())
