"""The plots of a report, as small PNG files, where matplotlib is installed."""

# pyright: reportUnknownMemberType=false
# Its types leave the keywords of nearly every method open.

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sandpool.bench.report import Curve, Plot, Report
from sandpool.errors import BackendUnavailable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LIBRARY = "matplotlib"
_SIZE = (7.0, 4.2)
_DOTS = 90
"""Per inch: legible, and a few tens of kilobytes."""
_COLOURS = 48


def draw(report: Report, directory: Path) -> list[str]:
    """Draw what there are curves for, and return the names of the files.

    `BackendUnavailable` without matplotlib.
    """
    if importlib.util.find_spec(_LIBRARY) is None:
        raise BackendUnavailable("no plots without matplotlib: install it, or use `make bench`")
    from matplotlib import figure as figures

    names: list[str] = []
    for plot, dress in _DRESSES.items():
        curves = report.curves(plot)
        if not curves:
            continue
        figure = figures.Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            _add(axes, curve)
        dress(axes)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="x-small")
        names.append(f"{plot}.png")
        _save(figure, directory / names[-1])
    return names


def _save(figure: Figure, path: Path) -> None:
    """Write a picture of few colours, a third as large; the same figures make the same file."""
    from PIL import Image

    whole = BytesIO()
    figure.savefig(whole, format="png")
    with Image.open(whole) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(path, "PNG", optimize=True)


def _add(axes: Axes, curve: Curve) -> None:
    style = "--" if curve.is_theory else "-"
    marker = "o" if curve.plot in ("rate", "memory") else None
    color = axes.lines[-1].get_color() if curve.is_theory and axes.lines else None
    axes.plot(curve.x, curve.y, style, marker=marker, color=color, label=curve.label, markersize=4)


def _distribution(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set(xlabel="ms, from the intended start", ylabel="share of calls", ylim=(0, 1.01))


def _rate(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="arrivals a second", ylabel="ms, from the intended start")


def _burst(axes: Axes) -> None:
    axes.set(xlabel="caller, in the order in which they were served", ylabel="ms")


def _memory(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set(xlabel="parked sandboxes", ylabel="MiB each", ylim=(0, None))


_DRESSES: Mapping[Plot, Callable[[Axes], None]] = MappingProxyType(
    {"distribution": _distribution, "rate": _rate, "burst": _burst, "memory": _memory}
)
