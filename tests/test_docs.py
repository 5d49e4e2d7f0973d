"""The documentation is true: programs run and print what the page shows, links lead somewhere.

On a page, a fence of `python` that begins with an import is a program.  If the next fence is of
`text`, it is what the program prints; there `...` stands for anything on one line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from sandpool import errors
from sandpool.clock import MonotonicClock
from sandpool.models import PoolSpec
from sandpool.server import ServerSettings
from sandpool.server.app import create_routes
from sandpool.wire import problems
from tests.integration.server.table import walk

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


@dataclass(frozen=True)
class Program:
    page: str
    code: str
    output: str | None


RUNNER = """
import ast, asyncio, inspect, sys
code = compile(sys.argv[1], "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
found = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(found):
    asyncio.run(found)
"""
"""Runs a program that may use `await` where a page leaves the function round it out."""


NEEDS = {"docs/howto/network.md": pytest.mark.egress}
"""What the programs of a page need beyond sandboxes."""

QUICK = ("README.md", "docs/tutorial")
"""Where the programs are that even a short run of the tests goes through."""


def programs() -> list[object]:
    found: list[object] = []
    for page in PAGES:
        fences = FENCE.findall(page.read_text())
        for number, (language, text) in enumerate(fences):
            if language != "python" or not re.match(r"(from|import) ", text):
                continue
            following = fences[number + 1] if number + 1 < len(fences) else ("", "")
            output = following[1] if following[0] == "text" else None
            program = Program(f"{page.relative_to(ROOT)}:{number}", text, output)
            marks = [] if program.page.startswith(QUICK) else [pytest.mark.slow]
            if need := NEEDS.get(str(page.relative_to(ROOT))):
                marks.append(need)
            found.append(pytest.param(program, id=program.page, marks=marks))
    return found


def as_pattern(output: str) -> str:
    return r"[^\n]*".join(re.escape(part) for part in output.split("..."))


@pytest.mark.namespaces
@pytest.mark.parametrize("program", programs())
def test_a_program_does_what_its_page_says(program: Program, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, program.code],
        cwd=tmp_path,
        env={**os.environ, "SANDPOOL_IMAGES": "python:3.11-slim=host"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if program.output is not None:
        assert re.fullmatch(as_pattern(program.output), done.stdout), done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_can_be_found_from_the_first() -> None:
    reached = {ROOT / "docs" / "README.md"}
    queue = list(reached)
    while queue:
        page = queue.pop()
        for target, _ in LINK.findall(page.read_text()):
            path = (page.parent / target).resolve()
            if path.suffix == ".md" and path.exists() and path not in reached:
                reached.add(path)
                queue.append(path)
    assert set((ROOT / "docs").rglob("*.md")) <= reached


def table(page: str) -> list[list[str]]:
    """Return the cells of a page's tables, a list for each row."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_error_page_has_every_error_and_no_other() -> None:
    classes = [errors.SandpoolError]
    for kind in classes:
        classes += kind.__subclasses__()
    codes = {(kind.code, kind.__name__, kind.blame) for kind in classes}
    shown = {
        (row[0].strip("`"), row[1].strip("`"), row[2])
        for row in table("docs/reference/errors.md")
        if row[0].startswith("`") and len(row) == 4
    }
    assert shown == {row for row in codes if row[1] in vars(errors)}


def test_the_pool_page_has_every_field_with_its_default() -> None:
    shown = {
        row[0].strip("`"): row[1].strip("`")
        for row in table("docs/reference/pool-spec.md")
        if row[0].startswith("`") and row[1].startswith("`")
    }
    fields = {
        name: "required"
        if field.is_required()
        else repr(field.get_default(call_default_factory=True))
        for name, field in PoolSpec.model_fields.items()
    }
    fields["health_check"] = "HealthCheck()"
    assert shown == {name: text.replace("'", '"') for name, text in fields.items()}


HTTP_PAGE = "docs/reference/http-api.md"


@pytest.fixture(scope="module")
def routes() -> FastAPI:
    return create_routes(ServerSettings(), backends=None, clock=MonotonicClock(), journal=None)


def is_native(path: str) -> bool:
    """Whether a path is the native API's own, and no other interface's or the description's."""
    words = path.split("/")
    return words[1] in ("v1", "claim", "healthz", "metrics") and "namespaces" not in words


def http_rows() -> dict[str, str]:
    """Return the rows of routes; what is "the same" stands in the row above."""
    found: dict[str, str] = {}
    above = ""
    for route, *cells in table(HTTP_PAGE):
        row = " ".join(cells)
        if re.match(r"`[A-Z]+ /", route):
            found[route.strip("`")] = row + above * ("the same" in row)
        above = row
    return found


def test_the_http_page_has_every_route_and_no_other(routes: FastAPI) -> None:
    there = {str(route) for route in walk(routes.routes) if is_native(route.path)}
    assert set(http_rows()) == there


def test_the_http_page_says_what_each_route_takes_and_the_status_of_its_answer(
    routes: FastAPI,
) -> None:
    document = routes.openapi()
    rows = http_rows()
    missing: list[str] = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            row = rows.get(f"{method.upper()} {path}", "") if is_native(path) else None
            if row is None:
                continue
            status = next(code for code in operation["responses"] if code.startswith("2"))
            wanted = [status, *taken_by(operation, document)]
            missing += [f"{method} {path}: {word}" for word in wanted if word not in row]
    assert missing == []


def taken_by(operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Return how a route's parameters and the fields of its body stand on the page."""
    found = [
        f"`?{each['name']}=`" if each["in"] == "query" else f"`{each['name']}`"
        for each in operation.get("parameters", [])
        # What is in the path needs no words, and leases have a chapter.
        if each["in"] != "path" and each["name"] != "X-Sandpool-Lease"
    ]
    found = [word.replace("`last-event-id`", "`Last-Event-ID`") for word in found]
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    for option in schema.get("anyOf", [schema]):
        name = option.get("$ref", "").rpartition("/")[2]
        if name == "PoolSpec":
            found.append("a definition")
        elif name:
            fields = document["components"]["schemas"][name]["properties"]
            found += [f"`{field}`" for field in fields]
    return found


def test_the_http_page_has_every_code_with_its_status() -> None:
    shown = {
        code: int(row[0])
        for row in table(HTTP_PAGE)
        if row[0].isdigit()
        for code in re.findall(r"`(\w+)`", row[1])
    }
    ours = {"internal_error", "method_not_allowed", "route_not_found"}
    """What the server answers that is no class of `errors`."""
    of_callers = {"sandpool_error", "remote_error", "server_unreachable"}
    """What no server answers."""
    known = {
        code: problems.status_of(problems.decode(500, {"code": code}))
        for code in set(errors.registry()) - of_callers
    }
    assert {code: status for code, status in shown.items() if code not in ours} == known
    assert ours <= set(shown)
