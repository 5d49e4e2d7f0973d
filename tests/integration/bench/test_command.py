"""`sandpool bench`, called as people call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandpool.bench.report import Report
from sandpool.cli import exits

pytestmark = [pytest.mark.namespaces, pytest.mark.slow]

Done = subprocess.CompletedProcess[str]


def bench(*arguments: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "sandpool", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def test_a_run_prints_a_table_and_makes_a_page_that_can_be_made_again(tmp_path: Path) -> None:
    out = tmp_path / "page"
    done = bench("B3", "B6", "--quick", "--repeats", "3", "--samples", "5", "--out", str(out))
    assert done.returncode == exits.OK, done.stderr
    assert "second run in a held sandbox, p50" in done.stdout
    assert {path.name for path in out.iterdir()} == {"index.md", "results.json", "burst.png"}
    report = Report.model_validate_json((out / "results.json").read_bytes())
    assert [len(figure.repeats) for figure in report.figures() if "last" in figure.name] == [3, 3]
    page = (out / "index.md").read_text()
    assert "![Waits in a burst, and theory](burst.png)" in page
    again = bench("--results", str(out / "results.json"), "--out", str(tmp_path / "again"))
    assert again.returncode == exits.OK, again.stderr
    for name in ("index.md", "results.json", "burst.png"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_json_goes_to_the_output_and_nothing_else_does() -> None:
    done = bench("B3", "--quick", "--samples", "5", "--json", "--seed", "11")
    assert done.returncode == exits.OK, done.stderr
    report = json.loads(done.stdout)
    assert report["settings"]["seed"] == "11"
    assert report["outcomes"][0]["status"] == "done"
    assert "B3" in done.stderr


def test_containers_without_an_engine_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/engine")
    done = bench("--suite", "docker", "--quick")
    assert done.returncode == exits.OURS
    assert "/no/such/engine" in done.stderr


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    done = bench("--results", str(path))
    assert done.returncode == exits.OURS
    assert "is not a report of benchmarks" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_benchmark_is_refused_before_anything_runs() -> None:
    done = bench("B3", "B99")
    assert done.returncode == exits.OURS
    assert "'b99'" in done.stderr
    assert done.stdout == ""
