"""Pools defined in TOML: what a file means, and how it is told what is wrong with one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.definitions import parse_definitions, read_definitions
from sandpool.errors import InvalidSpec
from sandpool.models import Base64Data, HealthCheck, PoolSpec

FILE = Path("pools.toml")

WEB = """
[pool.web]
entrypoint = ["python3", "-m", "http.server", "8080"]
ports = [8080]
lifetime = 300
min_remaining = 120
warm = 3

[pool.web.health_check]
kind = "http"
timeout = 10
"""


def refusal(text: str) -> str:
    """Return what is said of a definition that is wrong."""
    with pytest.raises(InvalidSpec) as caught:
        parse_definitions(text, FILE)
    return str(caught.value)


# --- what a file means ----------------------------------------------------------------------------


def test_a_table_is_the_definition_that_python_would_make() -> None:
    assert parse_definitions(WEB, FILE) == [
        PoolSpec(
            name="web",
            entrypoint=("python3", "-m", "http.server", "8080"),
            ports=(8080,),
            lifetime=300,
            min_remaining=120,
            warm=3,
            health_check=HealthCheck(kind="http", timeout=10),
        )
    ]


def test_pools_keep_the_order_of_their_file() -> None:
    text = "[pool.b]\n[pool.a]\n[pool.c]\n"
    assert [spec.name for spec in parse_definitions(text, FILE)] == ["b", "a", "c"]


def test_a_pool_that_serves_gets_the_defaults_of_services_and_another_does_not() -> None:
    text = '[pool.web]\nentrypoint = ["serve"]\nports = [80]\n[pool.plain]\n'
    web, plain = parse_definitions(text, FILE)
    assert (web.builders, web.claim_timeout, web.check_at_handover) == (20, 60.0, True)
    assert web.health_check.kind == "tcp"
    assert plain == PoolSpec(name="plain")


def test_what_a_file_says_goes_before_the_defaults_of_services() -> None:
    (spec,) = parse_definitions(WEB + "[pool.web.env]\nA = '1'\n", FILE)
    assert spec.health_check.kind == "http"
    assert spec.env == {"A": "1"}


def test_files_are_text_or_bytes_or_what_is_on_this_machine(tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "logo.png").write_bytes(data)
    path = tmp_path / "pools.toml"
    path.write_text(
        f"""
        [pool.web.files]
        "a.txt" = "text"
        "b.bin" = {{ base64 = "{base64.b64encode(data).decode()}" }}
        "c.png" = {{ from = "pages/logo.png" }}
        """
    )
    (spec,) = read_definitions(path)
    assert spec.files == {
        "a.txt": "text",
        "b.bin": Base64Data.of(data),
        "c.png": Base64Data.of(data),
    }


def test_a_name_with_a_dot_in_it_is_written_in_quotes() -> None:
    (spec,) = parse_definitions('[pool."web.v2"]\nwarm = 1\n', FILE)
    assert spec.name == "web.v2"


# --- what is wrong with one -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[pool.web]\nwarm = 3\nwram = 3\n",
            "pools.toml, line 3: pool.web.wram: there is no such setting",
        ),
        (
            "[pool.web]\nwarm = -1\n",
            "pools.toml, line 2: pool.web.warm: Input should be greater than or equal to 0",
        ),
        (
            "[pool.a]\nwarm = 1\n\n[pool.b]\nwarm = 'x'\n",
            "pools.toml, line 5: pool.b.warm: Input should be a valid integer",
        ),
        (
            "[pool.web]\nports = [80, 70_000]\n",
            "pools.toml, line 2: pool.web.ports: Input should be less than or equal to 65535",
        ),
        (
            "[pool.web]\nsetup = [\n  'true',\n  3,\n]\n",
            "pools.toml, line 2: pool.web.setup: Input should be a valid string",
        ),
        (
            "[pool.web]\nhealth_check.kind = 'tcp'\nhealth_check.prot = 80\n",
            "pools.toml, line 3: pool.web.health_check.prot: there is no such setting",
        ),
        (
            "[pool.web]\nwarm = 1\nhealth_check = { kind = 'ftp' }\n",
            "pools.toml, line 3: pool.web.health_check.kind: Input should be",
        ),
        (
            "[pool.web.health_check]\nkind = 'exec'\n",
            "line 1: pool.web.health_check: a health check of kind exec needs a command",
        ),
        (
            "[pool.web]\nwarm = 1\nlifetime = 60\nmin_remaining = 60\n",
            "line 4: pool.web.min_remaining: min_remaining must be less than lifetime",
        ),
        (
            "[pool.web]\nmax = 2\nwarm = 3\n",
            "line 3: pool.web.warm: warm (3) is more than max (2)",
        ),
        (
            "[pool.web]\nports = [80]\n[pool.web.health_check]\nkind = 'http'\n",
            "line 1: pool.web: entrypoint: a health check on a port needs a command that serves",
        ),
        (
            "[pool.web]\nentrypoint = ['serve']\nhealth_check = { kind = 'http' }\n",
            "line 3: pool.web.health_check: health_check: it names no port",
        ),
        ("[pool.web]\nname = 'other'\n", "line 2: pool.web.name: a pool's name is that of its"),
        ("warm = 1\n", "pools.toml, line 1: warm: a definition has only [pool.NAME] tables"),
        ("[pool.a]\n\n[server]\nport = 1\n", "line 3: server: a definition has only"),
        ("[pool]\nweb = 3\n", "pools.toml, line 2: pool.web: a pool is a table, [pool.NAME]"),
        ("\n[[pool.web]]\nwarm = 1\n", "line 2: pool.web: a pool is a table, [pool.NAME]"),
        ("[pool.Web_]\nwarm = 1\n", "pools.toml, line 1: pool.Web_: String should match pattern"),
        ("[pool.a]\n[pool.'b.c']\nwarm = -1\n", "line 3: pool.b.c.warm: Input should be greater"),
        ("pool.web.warm = 1\npool.web.max = 0\n", "line 2: pool.web.max: Input should be greater"),
        ("", "pools.toml: it defines no pool; write a [pool.NAME] table"),
        ("pool = 3\n", "pools.toml: it defines no pool"),
    ],
)
def test_a_fault_is_told_by_file_and_line_and_key(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[pool.web]\nwarm = \n", 2),
        ("[pool.web]\nwarm = 1\nwarm = 2\n", 3),
        ("[pool.web\n", 1),
        ("[pool.web]\nentrypoint = ['a'\nports = 1\n", 3),
    ],
)
def test_what_is_not_toml_is_told_by_file_and_line(text: str, line: int) -> None:
    said = refusal(text)
    assert said.startswith("pools.toml: ")
    assert f"at line {line}," in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{ base64 = "AAE" }', "pool.web.files.x.base64: Base64 decoding error"),
        ("{ base46 = 'AAEC' }", "pool.web.files.x.base46: there is no such setting"),
        ("3", "pool.web.files.x: Input should be a valid string"),
        ("{ from = 'missing.html' }", "files.x: missing.html cannot be read: No such file"),
        ("{ from = '.' }", "pool.web.files.x: . cannot be read: Is a directory"),
        (r'{ from = "\u0000" }', "cannot be read: embedded null byte"),
        ("{ from = 3 }", 'files.x: write { from = "path" } and nothing else'),
        ("{ from = 'a', base64 = '' }", 'files.x: write { from = "path" } and nothing else'),
    ],
)
def test_a_file_without_a_content_is_told_by_its_path(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(f"[pool.web]\nwarm = 1\n[pool.web.files]\nx = {content}\n")
    with pytest.raises(InvalidSpec) as caught:
        read_definitions(path)
    assert str(caught.value).startswith(f"{path}, line 4: pool.web.files.x")
    assert said in str(caught.value)


def test_the_place_of_a_file_is_checked() -> None:
    said = refusal("[pool.web.files]\n'../x' = ''\n")
    assert "pool.web.files: '../x' is not the path of a file" in said


def test_a_definition_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (missing, binary, tmp_path):
        with pytest.raises(InvalidSpec) as caught:
            read_definitions(path)
        assert str(caught.value).startswith(f"{path}: it cannot be read")


@pytest.mark.parametrize(
    "line",
    [r'env = { TOKEN = "hush\u0000" }', 'files = { "../x" = "hush" }', "env = { T = ['hush'] }"],
)
def test_no_content_of_a_file_or_variable_is_told(line: str) -> None:
    assert "hush" not in refusal(f"[pool.web]\n{line}\n")


LINES = [
    "[pool]",
    "[pool.web]",
    "[[pool.web]]",
    "[pool.'a.b'.files]",
    "# [pool.web]",
    "pool = []",
    "pool.web.max = 0",
    "warm = -1",
    "setup = [[1]]",
    "files.x.base64 = '?'",
    "files.x = { from = '?' }",
    "health_check = 3",
    "env = { '' = 1 }",
    "name = 1",
    "'' = 1",
    "x = {}",
    '"""',
]


@given(st.lists(st.sampled_from(LINES)))
def test_whatever_is_wrong_is_told_as_a_fault_of_the_definition(lines: list[str]) -> None:
    try:
        specs = parse_definitions("\n".join(lines), FILE)
    except InvalidSpec as error:
        assert str(error).startswith("pools.toml")
    else:
        assert specs


def test_the_definition_on_the_page_about_service_pools_is_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "service-pools.md"
    text = page.read_text().partition("```toml\n")[2].partition("```")[0]
    (spec,) = parse_definitions(text, page)
    assert (spec.warm, spec.allow_get_claim, spec.health_check.kind) == (3, True, "http")
    assert spec.files["data.bin"] == Base64Data.of(b"\x00\x01\x02")
