from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from sandpool.tools import guard
from sandpool.tools.modules import MAX_SOURCE, ModulePolicy

ALLOW = ModulePolicy(allowed=("json", "xml.etree", "math"))
BLOCK = ModulePolicy(blocked=("os", "xml.sax"))


@pytest.mark.parametrize(
    "source",
    [
        "import json, math",
        "import json.decoder as d",
        "from json import loads",
        "from __future__ import annotations",
        "import xml.etree.ElementTree",
        "from xml import etree",
        "from xml.etree import ElementTree",
        "print('import os')",
        "# import os",
        "__import__('json')",
        "this is no Python",
        "import os; this is no Python",
        "x = 'a\0b'",
    ],
)
def test_an_allow_list_lets_its_modules_pass(source: str) -> None:
    assert ALLOW.refusal(source) is None


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import os", "os"),
        ("import json, os", "os"),
        ("import os.path", "os.path"),
        ("import jsonx", "jsonx"),
        ("from os import path", "os"),
        ("from os import *", "os"),
        ("from xml import sax", "xml.sax"),
        ("from xml import *", "xml.*"),
        ("def f():\n    if x:\n        import os", "os"),
        ("try:\n    import os\nexcept ImportError:\n    pass", "os"),
        ("__import__('os')", "os"),
        ("import importlib", "importlib"),
        ("x.import_module('os')", "os"),
    ],
)
def test_an_allow_list_refuses_every_other_module(source: str, module: str) -> None:
    assert ALLOW.refusal(source) == f"Module {module!r} is not allowed"


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import os", "os"),
        ("import os.path", "os.path"),
        ("from os import path", "os"),
        ("import xml.sax", "xml.sax"),
        ("from xml import sax", "xml.sax"),
        ("from xml.sax import handler", "xml.sax"),
        ("import importlib; importlib.import_module('os')", "os"),
    ],
)
def test_a_block_list_refuses_its_modules(source: str, module: str) -> None:
    assert BLOCK.refusal(source) == f"Module {module!r} is not allowed"


@pytest.mark.parametrize(
    "source", ["import sys, json", "import osx", "import xml", "from . import os"]
)
def test_a_block_list_lets_other_modules_pass(source: str) -> None:
    assert BLOCK.refusal(source) is None


def test_a_module_that_is_both_allowed_and_blocked_is_refused() -> None:
    policy = ModulePolicy(allowed=("os", "json"), blocked=("os",))
    assert policy.refused("os") == "os"
    assert policy.refused("json") is None


def test_an_empty_allow_list_refuses_every_module() -> None:
    assert ModulePolicy(allowed=()).refused("json") == "json"


@pytest.mark.parametrize("source", ["-" * 100_000 + "1", "(" * 100 + "f" + "()" * 80_000])
def test_code_too_nested_to_read_is_never_run_unread(source: str) -> None:
    # Python's parser may also call it a syntax error; then it does not run either.
    refusal = BLOCK.refusal(source)
    if refusal is None:
        with pytest.raises(SyntaxError):
            ast.parse(source)
    else:
        assert "nested" in refusal


def test_code_too_long_to_read_is_refused() -> None:
    assert "cannot be checked" in str(BLOCK.refusal("#" * (MAX_SOURCE + 1)))
    assert BLOCK.refusal("#" * MAX_SOURCE) is None


def test_the_guard_is_python_3_8_and_imports_only_the_standard_library() -> None:
    tree = ast.parse(Path(guard.__file__).read_text(), feature_version=(3, 8))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    assert found <= sys.stdlib_module_names
