"""What the import contracts of `pyproject.toml` cannot say, and that they hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sandpool

SOURCE = Path(sandpool.__file__).parent
REPOSITORY = Path(__file__).parent.parent
IN_SANDBOXES = ("guest", "backends/native/template", "backends/docker/boot.py")
"""What runs inside sandboxes, on an image's own Python."""

GUEST = "sandpool.guest"
SHARED = "sandpool.guest.frames"

HEAVY = (
    "aiodocker", "aiohttp", "fastapi", "httpx", "matplotlib", "numpy", "ray", "rich", "starlette",
    "torch", "typer", "uvicorn",
)  # fmt: skip
VAGUE = ("utils", "util", "common", "misc", "helpers")


def modules(directory: Path = SOURCE) -> list[Path]:
    return sorted(path for path in directory.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE.parent).as_posix()


def inside() -> list[Path]:
    parts = [SOURCE / part for part in IN_SANDBOXES]
    return [path for part in parts for path in (modules(part) if part.is_dir() else [part])]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, name) of everything that a module imports; `a.b` for `from a import b`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = f"{node.module}." if node.module else ""
            yield from ((node.level, stem + alias.name) for alias in node.names)


@pytest.mark.parametrize("path", inside(), ids=name_of)
def test_what_runs_in_sandboxes_is_written_for_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))


@pytest.mark.parametrize("path", inside(), ids=name_of)
def test_what_runs_in_sandboxes_imports_the_standard_library_and_its_own_package(
    path: Path,
) -> None:
    foreign = [
        name
        for level, name in imports(path)
        if level > 1 or (level == 0 and name.split(".")[0] not in sys.stdlib_module_names)
    ]
    assert foreign == []


def test_the_host_shares_nothing_with_the_guest_but_the_wire_format() -> None:
    shared = {
        name
        for path in modules()
        if SOURCE / "guest" not in path.parents
        for level, name in imports(path)
        if level == 0 and (name == GUEST or name.startswith(GUEST + "."))
    }
    assert {
        name for name in shared if name != SHARED and not name.startswith(SHARED + ".")
    } == set()
    assert SHARED in shared


def test_importing_sandpool_imports_nothing_heavy() -> None:
    program = "import sys, sandpool; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & set(HEAVY) == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name_of(path) for path in modules() if path.stem in VAGUE] == []


def test_every_module_begins_by_saying_what_it_is() -> None:
    silent = [name_of(path) for path in modules() if ast.get_docstring(tree(path)) is None]
    assert silent == []


def test_the_import_contracts_hold() -> None:
    program = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
