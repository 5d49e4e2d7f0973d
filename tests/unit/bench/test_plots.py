"""Plots are small pictures of what a report has curves for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sandpool.bench import plots
from sandpool.bench.report import Curve, Findings, Outcome, Plot, Report
from sandpool.errors import BackendUnavailable

MOST = 60_000
"""Bytes."""


def report(*kinds: Plot) -> Report:
    curves = [
        Curve(
            plot=kind,
            label=f"curve {number}{', theory' * is_theory}",
            x=tuple(1.0 + step for step in range(500)),
            y=tuple(0.1 * (1 + step) * number for step in range(500)),
            is_theory=is_theory,
        )
        for kind in kinds
        for number in range(1, 9)
        for is_theory in (False, True)
    ]
    found = Outcome(
        key="B1", title="", where="", status="done", findings=Findings(curves=tuple(curves))
    )
    return Report(began="2026", seconds=1, machine={}, settings={}, outcomes=(found,))


@pytest.mark.slow
def test_every_kind_of_curve_becomes_a_small_picture(tmp_path: Path) -> None:
    names = plots.draw(report("distribution", "rate", "burst", "memory"), tmp_path)
    assert names == ["distribution.png", "rate.png", "burst.png", "memory.png"]
    for name in names:
        data = (tmp_path / name).read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG")
        assert (width > 400, height > 300, len(data) < MOST) == (True, True, True)


@pytest.mark.slow
def test_the_same_report_makes_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    for _ in range(2):
        plots.draw(report("burst"), tmp_path)
        pictures.append((tmp_path / "burst.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_there_is_no_picture_of_nothing(tmp_path: Path) -> None:
    assert plots.draw(report(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_that_there_is_nothing_to_draw_with_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_LIBRARY", "no_such_library")
    with pytest.raises(BackendUnavailable, match="matplotlib"):
        plots.draw(report("burst"), tmp_path)
