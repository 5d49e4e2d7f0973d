"""The programs of the page on Docker do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "docker.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_program_of_the_page_runs_and_prints_what_it_shows() -> None:
    fences = FENCE.findall(PAGE.read_text())
    programs = [number for number, (language, _) in enumerate(fences) if language == "python"]
    assert len(programs) == 4
    for number in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", fences[number][1]],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        following = fences[number + 1] if number + 1 < len(fences) else ("", "")
        if following[0] == "text":
            assert done.stdout == following[1]
