"""Matplotlib's figures, shown as notebooks show them, for tenants who import it; we never do.

Every figure that is open at the end of a cell, or when `pyplot.show` is called, is shown and
closed, as long as the backend is the one without a screen.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import sys
from typing import TYPE_CHECKING, Any

from . import display

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Callable, Sequence

_PYPLOT = "matplotlib.pyplot"
_LARGEST = display.ROOM * 3 // 4 - 4096
"""Bytes of a picture that fit into a bundle in base64."""
_ATTEMPTS = 4

_show: Callable[[dict[str, str]], None]


def show_through(show: Callable[[dict[str, str]], None]) -> None:
    """Have figures shown by `show`; called once in a context, before its first cell."""
    global _show
    _show = show
    module = sys.modules.get(_PYPLOT)
    if module is None:
        sys.meta_path.insert(0, _Finder())
    else:
        _adapt(module)


def flush() -> None:
    """Show every open figure, oldest first, and close it."""
    pyplot: Any = sys.modules.get(_PYPLOT)
    if pyplot is None or not hasattr(pyplot, "get_backend") or not _is_without_screen(pyplot):
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        try:
            bundle = picture(figure)
        finally:
            # Also one that cannot be drawn: it would fail in every later cell.
            pyplot.close(figure)
        if bundle is not None:
            _show(bundle)


def picture(value: object) -> dict[str, str] | None:
    """Return the bundle of a figure; None if `value` is not one."""
    module: Any = sys.modules.get("matplotlib.figure")
    kind = getattr(module, "Figure", None)
    if kind is None or not isinstance(value, kind):
        return None
    figure: Any = value
    dpi = float(figure.dpi)
    data = _draw(figure, dpi)
    for _ in range(_ATTEMPTS):
        if len(data) <= _LARGEST:
            break
        # Coarser, but a picture.
        dpi *= 0.9 * (_LARGEST / len(data)) ** 0.5
        data = _draw(figure, dpi)
    text = base64.b64encode(data).decode("ascii")
    return display.fit({"image/png": text, "text/plain": repr(value)})


def _draw(figure: Any, dpi: float) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def _is_without_screen(pyplot: Any) -> bool:
    name = pyplot.get_backend()
    return isinstance(name, str) and name.lower() == "agg"


def _adapt(pyplot: Any) -> None:
    """Make `pyplot.show` show, where it would do nothing for lack of a screen."""
    original = pyplot.show

    def show(*args: Any, **options: Any) -> Any:
        if _is_without_screen(pyplot):
            return flush()
        return original(*args, **options)

    show.__doc__ = original.__doc__
    pyplot.show = show


class _Finder:
    """Waits for the first import of pyplot, on which `sys.modules` has nothing to offer."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> Any:
        """Return pyplot's own spec, with a loader that adapts it; None for everything else."""
        if name != _PYPLOT:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """Pyplot's own loader, and a last step of ours."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then adapt it."""
        self._loader.exec_module(module)
        _adapt(module)
