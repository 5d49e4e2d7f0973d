"""References, and how far a pull is."""

from __future__ import annotations

import pytest

from sandpool.backends.docker.pulling import Progress, split


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("python", "python", "latest"),
        ("python:3.11-slim", "python", "3.11-slim"),
        ("library/python:3", "library/python", "3"),
        ("host:5000/python", "host:5000/python", "latest"),
        ("host:5000/python:3", "host:5000/python", "3"),
        ("python@sha256:ab", "python", "sha256:ab"),
        ("host:5000/python:3@sha256:ab", "host:5000/python:3", "sha256:ab"),
    ],
)
def test_a_reference_has_a_name_and_a_tag(reference: str, name: str, tag: str) -> None:
    assert split(reference) == (name, tag)


def test_progress_is_the_sum_of_the_layers() -> None:
    progress = Progress()
    mib = 1 << 20
    for layer, current in (("a", 1), ("b", 2), ("a", 3)):
        detail = {"current": current * mib, "total": 4 * mib}
        progress.take({"status": "Downloading", "id": layer, "progressDetail": detail})
    assert str(progress) == "5.0 of 8.0 MiB in 2 layers"
    progress.take({"status": "Download complete", "id": "a", "progressDetail": {}})
    assert str(progress) == "6.0 of 8.0 MiB in 2 layers"
    assert progress.error is None


def test_a_failure_is_one_line() -> None:
    progress = Progress()
    progress.take({"error": "no such\n manifest", "errorDetail": {}})
    assert progress.error == "no such manifest"


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"status": "Downloading"},
        {"status": "Downloading", "id": 7},
        {"status": "Downloading", "id": "a", "progressDetail": None},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": "much"}},
        {"status": "Pull complete", "id": "never seen"},
        {"error": None},
    ],
)
def test_a_line_that_says_nothing_changes_nothing(line: dict[str, object]) -> None:
    progress = Progress()
    progress.take(line)
    assert str(progress) == "0.0 of 0.0 MiB in 0 layers"
    assert progress.error is None
