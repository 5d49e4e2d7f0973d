"""What is public is really there, and every error that can reach a caller is documented."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import sandpool
from sandpool import errors
from sandpool.errors import SandpoolError

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| `(?P<code>\w+)` \| `(?P<name>\w+)` \| (?P<blame>\w+) \| (?P<remedy>.+) \|$")

# These run as programs: importing them would start one.
PROGRAMS = ("sandpool.__main__", "sandpool.backends.native.template.boot")


def module_names() -> list[str]:
    found = pkgutil.walk_packages(sandpool.__path__, "sandpool.")
    return ["sandpool", *(module.name for module in found if module.name not in PROGRAMS)]


def error_classes() -> list[type[SandpoolError]]:
    return sorted(
        (
            value
            for value in vars(errors).values()
            if isinstance(value, type) and issubclass(value, SandpoolError)
        ),
        key=lambda kind: kind.__name__,
    )


def documented() -> dict[str, re.Match[str]]:
    rows = map(ROW.match, PAGE.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows if row}


@pytest.mark.parametrize("name", module_names())
def test_every_public_name_is_there_and_listed_once(name: str) -> None:
    module = importlib.import_module(name)
    public: list[str] = list(getattr(module, "__all__", ()))
    assert len(public) == len(set(public))
    assert [missing for missing in public if not hasattr(module, missing)] == []


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


def test_a_code_leads_back_to_its_class() -> None:
    registry = errors.registry()
    assert {kind.code: kind for kind in error_classes()}.items() <= registry.items()


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_is_documented_as_it_is(kind: type[SandpoolError]) -> None:
    row = documented().get(kind.__name__)
    assert row is not None, f"docs/reference/errors.md has no row for {kind.__name__}"
    assert (row["code"], row["blame"]) == (kind.code, kind.blame)


def test_no_error_is_documented_that_does_not_exist() -> None:
    assert set(documented()) == {kind.__name__ for kind in error_classes()}
