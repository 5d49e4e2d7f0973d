"""The fragments in `changes/` keep to their grammar, so that a release can be put together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FRAGMENTS = Path(__file__).parent.parent / "changes"
TYPES = ("security", "removed", "deprecated", "added", "changed", "fixed")
NAME = re.compile(rf"\d+\.({'|'.join(TYPES)})\.md")


def fragments() -> list[Path]:
    return sorted(path for path in FRAGMENTS.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("path", fragments(), ids=lambda path: path.name)
def test_a_fragment_is_named_by_issue_and_type(path: Path) -> None:
    assert NAME.fullmatch(path.name), f"{path.name} is not <issue>.<{'|'.join(TYPES)}>.md"


@pytest.mark.parametrize("path", fragments(), ids=lambda path: path.name)
def test_a_fragment_is_one_paragraph_that_ends_as_a_sentence(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.endswith(".\n")
    assert "\n\n" not in text
    assert text[0].isupper() or text[0] == "`"
    assert not text.startswith(("# ", "- "))
