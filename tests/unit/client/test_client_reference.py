"""The client's reference: its tables are complete, and its example does what it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from sandpool import SandboxClient
from sandpool.client import BlockingSandbox, PoolRecord, SandboxRecord

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "client.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the part of the page below a heading that begins with `title`."""
    found = re.search(rf"^## `?{title}.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def first_cells(text: str) -> set[str]:
    """Return every name in the first column of the tables."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)", cell)}


@pytest.mark.parametrize("kind", [SandboxClient, BlockingSandbox])
def test_every_method_is_in_its_table(kind: type) -> None:
    public = {name for name in vars(kind) if not name.startswith("_")}
    assert public - first_cells(section(kind.__name__)) == set()


def test_every_argument_of_a_pool_is_in_its_table() -> None:
    arguments = set(inspect.signature(SandboxClient.create_pool).parameters) - {"self", "disk_mb"}
    documented = first_cells(section("SandboxClient").partition("### What a pool")[2])
    assert documented == arguments


@pytest.mark.parametrize("kind", [PoolRecord, SandboxRecord])
def test_every_field_of_a_record_is_documented(
    kind: type[PoolRecord] | type[SandboxRecord],
) -> None:
    text = section("What it tells")
    assert {name for name in kind.model_fields if f"`{name}`" not in text} == set()


@pytest.mark.namespaces
def test_the_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "client.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.split("\n") == [
        "0 ['1', '2', '3']",
        "42",
        "",
        "a sandbox of it is active",
        "",
    ]
